"""On GPUs: the Triton kernels of cuda_kernels.py, and when they can be used.

Triton comes with torch's builds for CUDA and ROCm. Without it, or with one before 3.3 or one that
cannot build, on GPUs before Volta, for float64, for empty batches and for images of 2**31 logits
the same numbers come from torch operations (cuda_torch.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_in_a_later_step, compute_dtype
from .cpu_library import WITH_MEMORY
from .cuda_torch import CUDA_TORCH
from .operation import Operation, differentiated
from .plain import PLAIN
from .rows import as_rows, from_rows, pixel_rows, resizing_weight

# Of a tile: with whole pixels a thread, four or one, what is looked for among the classes stays in
# it. Resizing takes more registers.
MAX_CLASSES = 8
PIXELS = 512
RESIZED_PIXELS = 128
# Classes of a tile of whole columns, and pixels of the several tiles that add to one row of sums.
MAX_COLUMN = 1024
STRIP = 1024
# Of the low resolution, that a program of the tail's backward takes.
MAX_COLUMNS = 128


Outputs = tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]
"""Of an operation, and the largest logit and 1 / sum exp(x - top) of each pixel."""


def usable(logits: Tensor) -> bool:
    """Whether Triton computes the loss of these logits: on a GPU, not in float64."""
    device = logits.device
    return logits.is_cuda and supported(logits) and _runs_on(device) and _builds_on(device)


@lru_cache
def _runs_on(device: torch.device) -> bool:
    # Triton compiles for Volta and later; on ROCm the number is another, and larger.
    return torch.cuda.get_device_capability(device) >= (7, 0)


@lru_cache
def _builds_on(device: torch.device) -> bool:
    """Whether a first, small loss can be compiled and run, which is tried once a process."""
    logits = torch.zeros(1, 2, 8, device=device, requires_grad=True)
    target = torch.zeros(1, 8, dtype=torch.int64, device=device)
    try:
        with torch.enable_grad():
            CUDA.class_sums(logits, target, None, None)[0].sum().backward()
    except ValueError:  # the labels of an earlier step
        raise
    except Exception as error:
        warnings.warn(
            f'Triton cannot build its kernels for {device} ({type(error).__name__}: {error}), and '
            'the losses take torch operations, which are slower. Triton needs a C compiler, the '
            'headers of Python, and a folder to write to (TRITON_CACHE_DIR)',
            stacklevel=2,
        )
        return False
    return True


def supported(logits: Tensor) -> bool:
    """Whether the kernels take logits of this type and size."""
    # The farthest logit of an image, of which (N, C) are one.
    axes = range(logits.dim() > 2, logits.dim())
    farthest = sum((logits.shape[axis] - 1) * logits.stride(axis) for axis in axes)
    return (
        has_triton()
        and type(logits) in WITH_MEMORY
        and compute_dtype(logits) == torch.float32
        and logits.numel() > 0
        and farthest < 2**31
    )


@lru_cache
def has_triton() -> bool:
    """Whether there is a Triton that the kernels are tested with: 3.3, of torch 2.7, or later."""
    if find_spec('triton') is None:
        return False
    import triton

    return tuple(int(part) for part in triton.__version__.split('.')[:2]) >= (3, 3)


def _class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, pixel_weight: Tensor | None
) -> Outputs:
    rows = as_rows(logits)
    weight = None if pixel_weight is None else pixel_rows(pixel_weight.contiguous())
    strides = rows.stride(0), rows.stride(1), 0, rows.stride(2)
    axes = _Axis(), _Axis()  # nothing to resize
    return _score(rows, pixel_rows(target), ignore_index, weight, strides, axes)


def _differentiate_class_sums(
    grads: tuple[Tensor],
    stats: Sequence[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
) -> Tensor:
    return _differentiate(logits, target, pixel_weight, grads[0], stats, ignore_index)


def _pixel_nll(logits: Tensor, target: Tensor, ignore_index: int | None) -> Outputs:
    _, (tops, scales) = _class_sums(logits, target, ignore_index, None)
    valid = (target >= 0) & (target < logits.shape[1])
    if ignore_index is not None:
        valid &= target != ignore_index
    own = logits.gather(1, torch.where(valid, target, 0).unsqueeze(1)).squeeze(1)
    nll = (tops.view(target.shape) - own).sub_(scales.log().view(target.shape))
    return (torch.where(valid, nll, 0.0), valid), (tops, scales)


def _differentiate_pixel_nll(
    grads: tuple[Tensor],
    stats: Sequence[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
) -> Tensor:
    """A weight per pixel is what a gradient per pixel is, with a weight of 1 for each class."""
    ones = stats[0].new_ones(logits.shape[1])
    return _differentiate(logits, target, grads[0], ones, stats, ignore_index)


def _differentiate(
    logits: Tensor,
    target: Tensor,
    pixel_weight: Tensor | None,
    class_factor: Tensor,
    stats: Sequence[Tensor],
    ignore_index: int | None,
) -> Tensor:
    """What differentiate writes, of the shape of the logits; ``stats`` are tops and scales."""
    rows = as_rows(logits)
    weight = None if pixel_weight is None else pixel_rows(pixel_weight.contiguous())
    grad = torch.empty_like(rows)
    num_images, num_classes, num_pixels = rows.shape
    pixels = pixels_of_tile(rows.stride(1))
    with _on(logits):
        _kernels().differentiate[(_ceil_div(num_pixels, pixels) * num_images,)](
            rows,
            pixel_rows(target),
            weight,
            class_factor.contiguous(),
            *stats,
            grad,
            num_pixels,
            num_classes,
            ignore_index or 0,
            *rows.stride(),
            *grad.stride(),
            IGNORES=ignore_index is not None,
            WEIGHTED=weight is not None,
            CLASSES=classes_of_tile(num_classes),
            PIXELS=pixels,
        )
    return from_rows(grad, logits)


def _soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> tuple[tuple[Tensor, ...], tuple[()]]:
    num_classes = logits.shape[1]
    sizes = (2, num_classes), (num_classes,)
    sums, counts = _add_columns('add_softmax', logits, target, ignore_index, sizes)
    of_image = as_rows(logits).shape[0] if per_image else 1, -1
    total = sums.unflatten(0, of_image).sum(1, dtype=torch.float64).float()
    pixels = counts.unflatten(0, of_image).sum(1, dtype=torch.int64)
    return (total[:, 0], total[:, 1], pixels), ()


def _differentiate_soft_counts(
    grads: tuple[Tensor, Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    per_image: bool,
) -> Tensor:
    given = [g.contiguous() for g in grads], (logits.shape[1] if per_image else 0,)
    return _differentiate_columns('differentiate_softmax', logits, target, ignore_index, *given)


def _adjusted_nll(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    adjustment: Tensor,
    q: float,
) -> tuple[tuple[Tensor, ...], tuple[()]]:
    given = ((), ()), (pixel_weight, adjustment), _table(adjustment, q)
    weighted = pixel_weight is not None
    sums, counts = _add_columns(
        'score_adjusted', logits, target, ignore_index, *given, WEIGHTED=weighted
    )
    return (sums.sum(dtype=torch.float64).float(), counts.sum(dtype=torch.int64)), ()


def _differentiate_adjusted_nll(
    grads: tuple[Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    adjustment: Tensor,
    q: float,
) -> Tensor:
    given = (pixel_weight, adjustment, grads[0]), _table(adjustment, q)
    weighted = pixel_weight is not None
    return _differentiate_columns(
        'differentiate_adjusted', logits, target, ignore_index, *given, WEIGHTED=weighted
    )


def _table(adjustment: Tensor, q: float) -> tuple[int, int, float]:
    """(from label to label, from class to class, q)."""
    of_pairs = adjustment.shape[1] > 1
    return int(of_pairs), adjustment.shape[1], float(q)


def _add_columns(
    kernel: str,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    inputs: Sequence[Tensor | None] = (),
    numbers: Sequence[float] = (),
    **constants: bool,
) -> tuple[Tensor, Tensor]:
    """The sums and counts of the programs of a forward by columns, of these sizes each."""
    rows = as_rows(logits)
    num_images, num_classes, num_pixels = rows.shape
    tile = columns_of_tile(num_classes)
    steps = max(1, STRIP // tile['PIXELS'])
    num_programs = _ceil_div(num_pixels, steps * tile['PIXELS']) * num_images
    sums = logits.new_empty(num_programs, *sizes[0], dtype=torch.float32)
    counts = logits.new_empty(num_programs, *sizes[1], dtype=torch.int32)
    id_range = logits.new_empty(num_programs, 2, dtype=torch.int64)
    with _on(logits):
        getattr(_kernels(), kernel)[(num_programs,)](
            rows,
            pixel_rows(target),
            *inputs,
            *(sums, counts, id_range),
            num_pixels,
            num_classes,
            ignore_index or 0,
            *numbers,
            *rows.stride(),
            IGNORES=ignore_index is not None,
            STEPS=steps,
            **constants,
            **tile,
        )
    check_in_a_later_step(id_range[:, 0].amin(), id_range[:, 1].amax(), num_classes)
    return sums, counts


def _differentiate_columns(
    kernel: str,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    inputs: Sequence[Tensor | None],
    numbers: Sequence[float],
    **constants: bool,
) -> Tensor:
    """What a backward by columns writes, of the shape of the logits."""
    rows = as_rows(logits)
    num_images, num_classes, num_pixels = rows.shape
    tile = columns_of_tile(num_classes)
    grad = torch.empty_like(rows)
    with _on(logits):
        getattr(_kernels(), kernel)[(_ceil_div(num_pixels, tile['PIXELS']) * num_images,)](
            rows,
            pixel_rows(target),
            *inputs,
            grad,
            num_pixels,
            num_classes,
            ignore_index or 0,
            *numbers,
            *rows.stride(),
            *grad.stride(),
            IGNORES=ignore_index is not None,
            **constants,
            **tile,
        )
    return from_rows(grad, logits)


def _resized_class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> Outputs:
    axes = _axes(logits, target, align_corners)
    return _score(logits, target, ignore_index, None, logits.stride(), axes)


def _differentiate_resized_class_sums(
    grads: tuple[Tensor],
    stats: Sequence[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    align_corners: bool,
) -> Tensor:
    y, x = _axes(logits, target, align_corners)
    num_images, num_classes, height, width = logits.shape
    classes = classes_of_tile(num_classes)
    columns = min(MAX_COLUMNS, _power_of_2(width))
    grad = torch.empty_like(logits, dtype=torch.float32)
    tiles = num_images * _ceil_div(num_classes, classes)
    with _on(logits):
        _kernels().differentiate_resized[(_ceil_div(width, columns) * height * tiles,)](
            logits,
            target,
            grads[0].contiguous(),
            *stats,
            grad,
            *(y.first, y.weight, x.first, x.weight),
            *(y.start, y.stop, x.start, x.stop),
            x.most,
            *target.shape[1:],
            height,
            width,
            num_classes,
            ignore_index or 0,
            *logits.stride(),
            *grad.stride(),
            IGNORES=ignore_index is not None,
            CLASSES=classes,
            COLUMNS=columns,
        )
    return grad


def _score(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int | None,
    weight: Tensor | None,
    strides: tuple[int, ...],
    axes: tuple[_Axis, _Axis],
) -> Outputs:
    """((sums, *counts), (largest logit and 1 / sum exp(x - top) of each pixel))."""
    num_images, num_classes = logits.shape[:2]
    num_pixels = labels[0].numel()
    resized = axes[0].first is not None
    pixels = pixels_of_tile(strides[1], resized)
    num_programs = _ceil_div(num_pixels, pixels) * num_images
    sums = logits.new_empty(num_programs, num_classes, dtype=torch.float32)
    counts = logits.new_empty(num_programs, 3, num_classes, dtype=torch.int32)
    id_range = logits.new_empty(num_programs, 2, dtype=torch.int64)
    tops, scales = logits.new_empty(2, *labels.shape, dtype=torch.float32)
    y, x = axes
    with _on(logits):
        _kernels().score[(num_programs,)](
            logits,
            labels,
            weight,
            *(sums, counts, id_range, tops, scales),
            *(y.first, y.weight, x.first, x.weight),
            num_pixels,
            labels.shape[-1],
            num_classes,
            ignore_index or 0,
            *strides,
            IGNORES=ignore_index is not None,
            WEIGHTED=weight is not None,
            RESIZED=resized,
            CLASSES=classes_of_tile(num_classes),
            PIXELS=pixels,
        )
    check_in_a_later_step(id_range[:, 0].amin(), id_range[:, 1].amax(), num_classes)
    total = sums.sum(0, dtype=torch.float64).float()
    return (total, *counts.sum(0, dtype=torch.int64).unbind()), (tops, scales)


class _Axis(NamedTuple):
    """Bilinear resizing along one axis.

    An output lies between the inputs ``first`` and ``first + 1`` and takes the share ``weight`` of
    the second; an input takes part in the outputs from ``start`` to before ``stop``, ``most`` at
    most.
    """

    first: Tensor | None = None
    weight: Tensor | None = None
    start: Tensor | None = None
    stop: Tensor | None = None
    most: int = 0


def _axes(logits: Tensor, target: Tensor, align_corners: bool) -> tuple[_Axis, _Axis]:
    sizes = zip(logits.shape[2:], target.shape[1:], strict=True)
    rows, columns = (_axis(*size, align_corners, logits.device) for size in sizes)
    return rows, columns


@lru_cache(maxsize=64)
def _axis(size_in: int, size_out: int, align_corners: bool, device: torch.device) -> _Axis:
    weight = resizing_weight(size_in, size_out, align_corners, torch.float32)
    used = (weight > 0).int()
    first, start = used.argmax(1), used.argmax(0)
    # The input after the last weighs nothing.
    second = F.pad(weight, (0, 1)).gather(1, first[:, None] + 1)[:, 0]
    number = used.sum(0)
    first, start, stop = (t.int().to(device) for t in (first, start, start + number))
    return _Axis(first, second.to(device), start, stop, int(number.max()))


def classes_of_tile(num_classes: int) -> int:
    return min(_power_of_2(num_classes), MAX_CLASSES)


def pixels_of_tile(class_stride: int, resized: bool = False) -> int:
    """Fewer where the classes are adjacent (channels_last, (N, C)): Triton then gives each thread
    the classes of several pixels, with more registers than there are.
    """
    pixels = RESIZED_PIXELS if resized else PIXELS
    return pixels // 4 if class_stride == 1 else pixels


def columns_of_tile(num_classes: int) -> dict[str, int]:
    """A tile of whole columns, of 16 logits a thread; the pixels are a sector of memory."""
    classes = _power_of_2(num_classes)
    pixels = max(16, 2048 // classes)
    return dict(CLASSES=classes, PIXELS=pixels, num_warps=classes * pixels // 512)


def _by_columns(name: str, operation: Operation) -> Callable[..., Any]:
    """The operation where a column fits a program, else what torch operations do."""
    by_columns, by_torch = differentiated(operation), getattr(CUDA_TORCH, name)

    def operate(logits: Tensor, *rest: Any) -> Any:
        fits = logits.shape[1] <= MAX_COLUMN
        return (by_columns if fits else by_torch)(logits, *rest)

    return operate


def _power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _on(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, which need not be that of the tensor."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _kernels() -> Any:
    from . import cuda_kernels

    return cuda_kernels


CUDA = CUDA_TORCH._replace(
    class_sums=differentiated(Operation(_class_sums, _differentiate_class_sums, PLAIN.class_sums)),
    resized_class_sums=differentiated(
        Operation(_resized_class_sums, _differentiate_resized_class_sums, PLAIN.resized_class_sums)
    ),
    pixel_nll=differentiated(Operation(_pixel_nll, _differentiate_pixel_nll, PLAIN.pixel_nll)),
    soft_counts=_by_columns(
        'soft_counts',
        Operation(_soft_counts, _differentiate_soft_counts, PLAIN.soft_counts, differentiable=2),
    ),
    adjusted_nll=_by_columns(
        'adjusted_nll', Operation(_adjusted_nll, _differentiate_adjusted_nll, PLAIN.adjusted_nll)
    ),
)
