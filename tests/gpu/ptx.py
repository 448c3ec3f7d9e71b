"""Every pixel loss by the compiled Triton kernels, emulated, as JSON:  python -m tests.gpu.ptx

A line for each case: how far value and gradient are from the float64 oracles (tests/oracles), the
gradient relative to its largest, and how far the type of the logits lets it be; what the emulator
found; and the bytes that the kernels read and wrote, in tensors of the size of the float32 logits.
No GPU is needed.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmseg_recall.functional import adjusted, class_nll, soft_iou
from mmseg_recall.functional.engines import cuda, cuda_kernels
from mmseg_recall.losses import available_losses
from tests.functional.interpreter import check_at_once
from tests.gpu.emulator import Emulator, Memory

CAPABILITY = 90
TYPES = {
    **{torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16'},
    **{torch.int32: '*i32', torch.int64: '*i64'},
}
LOSSES: dict[str, dict[str, Any]] = {
    'RecallLoss': {},
    'SoftIoULoss': dict(average='image'),
    'SoftTverskyLoss': {},
    'SeesawLoss': {},
    'LogitAdjustedLoss': {},
}
SIZES = [(2, torch.float32), (3, torch.float32), (11, torch.float32), (150, torch.float32)]
SIZES += [(19, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)]


class Kernels:
    """Stands for cuda_kernels: what is launched is compiled, and executed by the emulator."""

    def __init__(self) -> None:
        self.compiled: dict[str, Any] = {}
        self.forget()

    def forget(self) -> None:
        self.faults: set[str] = set()
        self.traffic = 0

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(cuda_kernels, name)

        class Launcher:
            def __getitem__(_, grid: tuple[int]) -> Callable[..., None]:
                return lambda *given, **constants: self.launch(kernel, grid[0], given, constants)

        return Launcher()

    def launch(self, kernel: Any, grid: int, given: tuple, constants: dict[str, Any]) -> None:
        options = dict(num_warps=constants.pop('num_warps', 4))
        bound = dict(zip(kernel.arg_names, given, strict=False)) | constants
        plain = {p.name for p in kernel.params if p.do_not_specialize}
        signature, fixed, attributes, arguments = {}, {}, {}, []
        for i, name in enumerate(kernel.arg_names):
            value = bound[name]
            is_one = type(value) is int and value == 1 and name not in plain
            if name in constants or value is None or is_one:
                signature[name], fixed[(i,)] = 'constexpr', value
                continue
            number = value.data_ptr() if isinstance(value, Tensor) else value
            if isinstance(value, Tensor):
                signature[name] = TYPES[value.dtype]
            elif isinstance(value, float):
                signature[name] = 'fp32'
                number = struct.unpack('<I', struct.pack('<f', value))[0]
            else:
                signature[name] = 'i32' if -(2**31) <= value < 2**31 else 'i64'
            if not isinstance(value, float) and number % 16 == 0 and name not in plain:
                attributes[(i,)] = [['tt.divisibility', 16]]
            arguments.append(number)
        key = str((kernel.__name__, options, signature, fixed, attributes))
        if key not in self.compiled:
            source = ASTSource(kernel, signature, constexprs=fixed, attrs=attributes)
            target = GPUTarget('cuda', CAPABILITY, 32)
            self.compiled[key] = triton.compile(source, target=target, options=options)
        compiled = self.compiled[key]
        tensors = [v.untyped_storage() for v in bound.values() if isinstance(v, Tensor)]
        memory = Memory({s.data_ptr(): _bytes(s.data_ptr(), s.nbytes()) for s in tensors})
        emulator = Emulator(compiled.asm['ptx'], kernel.__name__, compiled.metadata.shared)
        # What Triton adds to the arguments is for kernels that need more memory.
        emulator.launch(grid, [*arguments, 0, 0, 0], memory)
        self.faults |= {f'{kernel.__name__}: {fault}' for fault in emulator.faults}
        self.traffic += memory.traffic()


def _bytes(address: int, size: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


KERNELS = Kernels()


def use_emulator() -> None:
    """Have the losses take the path of a GPU, on tensors in main memory."""
    cuda._kernels = lambda: KERNELS
    cuda.check_in_a_later_step = check_at_once
    for module in (adjusted, class_nll, soft_iou):
        module.pick_engine = lambda *_: cuda.CUDA


def batch(num_classes: int, dtype: torch.dtype, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Some pixels are ignored, and the last class is absent, but of two."""
    generator = torch.Generator().manual_seed(num_classes)
    logits = 3 * torch.randn(2, num_classes, *size, generator=generator)
    present = max(num_classes - 1, 2)
    target = torch.randint(present, (2, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits.to(dtype), target


def oracle(name: str, logits: Tensor, target: Tensor, options: dict) -> tuple[float, Tensor]:
    """Value, and gradient of the logits."""
    default_name = available_losses()[name].default_name
    loss = import_module(f'tests.oracles.{default_name.removeprefix("loss_")}').loss
    rows = logits.double().movedim(1, -1).flatten(0, -2)
    valid = (target != 255).flatten()
    pixels = list(zip(rows[valid].tolist(), target.flatten()[valid].tolist(), strict=True))
    if name.startswith('Soft'):
        image = torch.arange(len(target)).repeat_interleave(target[0].numel())
        options = dict(options, images=image[valid].tolist())
    value, gradient = loss(pixels, logits.shape[1], **options)
    expected = torch.zeros_like(rows)
    expected[valid] = torch.tensor(gradient, dtype=torch.double)
    return value, expected.view(len(target), *target.shape[1:], -1).movedim(-1, 1)


def case(name: str, num_classes: int, dtype: torch.dtype, layout: str) -> dict[str, Any]:
    logits, target = batch(num_classes, dtype, (7, 13) if layout == 'odd' else (8, 16))
    if layout == 'channels_last':
        logits = logits.contiguous(memory_format=torch.channels_last)
    options = dict(LOSSES[name])
    if name == 'LogitAdjustedLoss':
        options['class_counts'] = [10**6 // (c + 1) for c in range(num_classes)]
    KERNELS.forget()
    x = logits.detach().requires_grad_()
    value = available_losses()[name](**options)(x, target)
    [gradient] = torch.autograd.grad(value, x)
    expected, expected_gradient = oracle(name, logits, target, options)
    error = (gradient.double() - expected_gradient).abs().max() / expected_gradient.abs().max()
    return dict(
        value_error=abs(value.item() - expected) / abs(expected),
        gradient_error=error.item(),
        rounding=max(2e-6, torch.finfo(dtype).eps),
        faults=sorted(KERNELS.faults),
        passes=KERNELS.traffic / (4 * logits.numel()),
    )


def main() -> None:
    use_emulator()
    for name in LOSSES:
        for num_classes, dtype in SIZES:
            layouts = ['odd']
            if (num_classes, dtype) == (19, torch.float32):
                layouts += ['aligned', 'channels_last']
            for layout in layouts:
                key = dict(loss=name, classes=num_classes, dtype=str(dtype), layout=layout)
                print(json.dumps(key | case(name, num_classes, dtype, layout)), flush=True)


if __name__ == '__main__':
    sys.exit(main())
