"""Compile the Triton kernels for GPUs that need not be there: what each takes, as JSON.

python -m tests.functional.compile_kernels
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmseg_recall.functional.engines import cuda, cuda_kernels

POINTERS = {
    **dict.fromkeys(('counts', 'first_y', 'first_x'), '*i32'),
    **dict.fromkeys(('starts_y', 'stops_y', 'starts_x', 'stops_x'), '*i32'),
    **dict.fromkeys(('sums', 'tops', 'scales', 'weights_y', 'weights_x'), '*fp32'),
    **dict.fromkeys(('pixel_weight', 'class_factor'), '*fp32'),
    **dict.fromkeys(('of_own', 'of_mass', 'adjustment', 'scale'), '*fp32'),
    'q': 'fp32',
    **dict.fromkeys(('target', 'id_range'), '*i64'),
}
# What Triton makes of an argument that it finds to be a multiple of 16.
EVEN = [['tt.divisibility', 16]]


def compile_kernel(
    function: triton.JITFunction, constants: dict, logits: str, capability: int, even: bool
) -> dict[str, int]:
    """Registers a thread, bytes of the stack (spilled registers), and loads and stores by width."""
    names = function.arg_names
    types = POINTERS | dict(
        logits=logits, grad='*fp32' if 'resized' in function.__name__ else logits
    )
    signature = {n: 'constexpr' if n in constants else types.get(n, 'i32') for n in names}
    strides = [n for n in names if n.endswith('stride') or n == 'num_pixels']
    multiples = [n for n in names if signature[n][0] == '*' or (even and n in strides)]
    source = ASTSource(
        function,
        signature,
        constexprs={(names.index(n),): v for n, v in constants.items() if n in names},
        attrs={(names.index(n),): EVEN for n in multiples if n not in constants},
    )
    options = dict(num_warps=constants['num_warps']) if 'num_warps' in constants else None
    compiled = triton.compile(source, target=GPUTarget('cuda', capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(compiled.asm['cubin'])
        file.flush()
        tool = Path(triton.__path__[0], 'backends/nvidia/bin/cuobjdump')
        usage = subprocess.run([tool, '-res-usage', file.name], capture_output=True, text=True)
    registers, stack = re.search(r'REG:(\d+) STACK:(\d+)', usage.stdout + usage.stderr).groups()
    ptx = compiled.asm['ptx']
    return dict(
        registers=int(registers),
        stack=int(stack),
        wide_loads=len(re.findall(r'ld\.global\S*\.v[24]', ptx)),
        wide_stores=len(re.findall(r'st\.global\S*\.v[24]', ptx)),
    )


def main() -> None:
    classes = cuda.classes_of_tile(19)
    no_resizing = dict.fromkeys(('first_y', 'weights_y', 'first_x', 'weights_x'), None)
    rows = dict(IGNORES=True, column_stride=1, CLASSES=classes, PIXELS=cuda.PIXELS)
    plain, weighted = dict(WEIGHTED=False, pixel_weight=None), dict(WEIGHTED=True)
    score, differentiate = cuda_kernels.score, cuda_kernels.differentiate
    unresized = dict(RESIZED=False, row_stride=0, **no_resizing)
    kernels = {
        'score': (score, rows | unresized | plain),
        'score, weighted': (score, rows | unresized | weighted),
        'score, resized': (
            score,
            rows | plain | dict(RESIZED=True, PIXELS=cuda.RESIZED_PIXELS),
        ),
        'differentiate': (differentiate, rows | plain | dict(grad_column_stride=1)),
        'differentiate, weighted': (differentiate, rows | weighted | dict(grad_column_stride=1)),
        'differentiate, resized': (
            cuda_kernels.differentiate_resized,
            dict(
                IGNORES=True,
                CLASSES=classes,
                COLUMNS=cuda.MAX_COLUMNS,
                column_stride=1,
                grad_column_stride=1,
            ),
        ),
    }
    adjacent_classes = {
        'score': (score, unresized | plain | dict(PIXELS=cuda.pixels_of_tile(1))),
        'score, resized': (score, plain | dict(RESIZED=True, PIXELS=cuda.pixels_of_tile(1, True))),
        'differentiate': (
            differentiate,
            plain | dict(grad_class_stride=1, PIXELS=cuda.pixels_of_tile(1)),
        ),
        'differentiate, resized': (
            cuda_kernels.differentiate_resized,
            dict(COLUMNS=cuda.MAX_COLUMNS, grad_class_stride=1),
        ),
    }
    for forward, backward, num_classes in (
        (cuda_kernels.add_softmax, cuda_kernels.differentiate_softmax, 19),
        (cuda_kernels.score_adjusted, cuda_kernels.differentiate_adjusted, 150),
    ):
        columns = rows | weighted | cuda.columns_of_tile(num_classes)
        steps = dict(STEPS=cuda.STRIP // columns['PIXELS'])
        kernels['columns, ' + forward.__name__] = forward, columns | steps
        kernels['columns, ' + backward.__name__] = backward, columns | dict(grad_column_stride=1)
    common = dict(IGNORES=True, CLASSES=classes, class_stride=1)
    for name, (function, constants) in adjacent_classes.items():
        kernels[f'{name}, channels_last'] = function, common | constants
    for logits, capability, even in itertools.product(('*fp32', '*bf16'), (80, 90), (True, False)):
        for name, (function, constants) in kernels.items():
            taken = compile_kernel(function, constants, logits, capability, even)
            key = dict(kernel=name, logits=logits, capability=capability, even=even)
            print(json.dumps(key | taken))


if __name__ == '__main__':
    main()
