"""On CPU: block by block, by the C functions of cpu_kernels.c or by torch operations.

A block of the logits is read into the cache once and scored there; the backward computes the
softmax again and writes the gradient once. Nothing of the size of the logits is allocated besides
that gradient.

The resized class sums do the same from low-resolution logits: a tile is upsampled where it is
scored, and its gradient is brought down again at once, so that neither the full-resolution logits
nor their gradient ever exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import compute_dtype, valid_pixels
from ..counts import count_classes
from . import cpu_blocks, cpu_library
from .cpu_blocks import At, Result, full_precision, in_huge_pages, map_on_threads, map_row_blocks
from .cpu_lovasz import lovasz_softmax
from .plain import PLAIN, plain_gradient, sum_per_class
from .rows import as_rows, from_rows, pixel_rows, resizing_weight

# Columns of a tile: narrow, because what upsampling multiplies with grows with it, yet wide enough
# for a matrix product.
TILE_COLUMNS = 128


class _Operation(NamedTuple):
    """A function of logits, target, ignore_index and what else it needs, and its gradient."""

    forward: Callable[..., tuple[Tensor, ...] | Tensor]
    backward: Callable[..., Tensor]
    """(gradients of the outputs, logits, target, ...) -> gradient of the logits."""
    plain: Callable[..., Any]
    """The same by torch operations, for a gradient that is itself to be differentiated."""
    differentiable: int = 1
    """How many outputs, the first ones, have a gradient."""


class _OverBlocks(torch.autograd.Function):
    """An operation that goes over the logits block by block and saves its inputs alone."""

    @staticmethod
    def forward(
        ctx: Any, op: _Operation, logits: Tensor, target: Tensor, *options: Any
    ) -> tuple[Tensor, ...] | Tensor:
        target = target.contiguous()
        ctx.save_for_backward(logits, target, *[o for o in options if isinstance(o, Tensor)])
        ctx.op, ctx.options = op, [None if isinstance(o, Tensor) else (o,) for o in options]
        outputs = op.forward(logits, target, *options)
        if isinstance(outputs, tuple):
            ctx.mark_non_differentiable(*outputs[op.differentiable :])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, *tensors = ctx.saved_tensors
        options = [tensors.pop(0) if o is None else o[0] for o in ctx.options]
        arguments, grads = (logits, target, *options), grads[: ctx.op.differentiable]
        if torch.is_grad_enabled():
            grad = plain_gradient(ctx.op.plain, grads, *arguments)
        else:
            grad = ctx.op.backward(grads, *arguments)
        return None, grad, None, *[None] * len(options)


def _differentiate_class_sums(
    grads: tuple[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
) -> Tensor:
    return _differentiate(logits, target, ignore_index, grads[0], pixel_weight)


def _pixel_nll(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, ...]:
    nll = target.new_empty(target.shape, dtype=torch.float32)
    valid = target.new_empty(target.shape, dtype=torch.bool)
    _score(logits, target, ignore_index, None, nll, valid)
    return nll, valid


def _differentiate_pixel_nll(
    grads: tuple[Tensor], logits: Tensor, target: Tensor, ignore_index: int | None
) -> Tensor:
    return _differentiate(logits, target, ignore_index, None, grads[0].contiguous())


def _rows(image: Tensor | None) -> Tensor | None:
    return None if image is None else pixel_rows(image.contiguous())


def _score(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    nll: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Sums and counts of (N, C, ...); by the library also -log p and valid per pixel, written."""
    labels, *others = [_rows(image) for image in (target, pixel_weight, nll, valid)]

    def score(at: At, x: Tensor, scratch: Tensor) -> _Score:
        rest = [None if image is None else image[at] for image in others]
        return _score_block(x, labels[at], ignore_index, scratch, *rest)

    return _total(map_row_blocks(score, as_rows(logits)), logits, target, ignore_index)


def _differentiate(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor | None,
    pixel_factor: Tensor | None,
) -> Tensor:
    """The gradient of the logits: softmax less one-hot, times the factors of class and pixel."""
    if class_factor is not None:
        class_factor = class_factor.contiguous()
    labels, factor = _rows(target), _rows(pixel_factor)

    def differentiate(at: At, x: Tensor, scratch: Tensor, out: Tensor) -> None:
        rest = class_factor, None if factor is None else factor[at]
        _differentiate_block(x, labels[at], ignore_index, *rest, scratch, out)

    return _write_gradient(differentiate, logits)


def _write_gradient(
    differentiate: Callable[[At, Tensor, Tensor, Tensor], None], logits: Tensor
) -> Tensor:
    """What ``differentiate(at, x, scratch, out)`` writes of each block, as one tensor."""
    rows = as_rows(logits)
    grad = in_huge_pages(torch.empty_like(rows))

    def on_block(at: At, x: Tensor, scratch: Tensor) -> None:
        differentiate(at, x, scratch, grad[at[0], :, at[1]])

    map_row_blocks(on_block, rows)
    return from_rows(grad, logits)


def _soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> tuple[Tensor, Tensor, Tensor]:
    labels, num_classes = pixel_rows(target), logits.shape[1]

    def score(at: At, x: Tensor, _: Tensor) -> tuple[slice, Tensor, Tensor, int]:
        images = at[0] if per_image else slice(0, 1)
        size = images.stop - images.start, num_classes
        sums = x.new_zeros(2, *size, dtype=torch.float64)
        pixels = x.new_zeros(size, dtype=torch.int64)
        rest = num_classes if per_image else 0, sums[0], sums[1], pixels
        unknown = cpu_library.run('soft_counts_forward', x, labels[at], ignore_index, *rest)
        return images, sums, pixels, unknown

    num_images = len(logits) if per_image else 1
    total = logits.new_zeros(2, num_images, num_classes, dtype=torch.float64)
    pixels = logits.new_zeros(num_images, num_classes, dtype=torch.int64)
    for images, block_sums, block_pixels, unknown in map_row_blocks(score, as_rows(logits)):
        if unknown:
            valid_pixels(target, num_classes, ignore_index)  # says which
        total[:, images] += block_sums
        pixels[images] += block_pixels
    intersection, mass = total.float().unbind()
    return intersection, mass, pixels


def _differentiate_soft_counts(
    grads: tuple[Tensor, Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    per_image: bool,
) -> Tensor:
    grads = grads[0].contiguous(), grads[1].contiguous()
    labels, distance = pixel_rows(target), logits.shape[1] if per_image else 0

    def differentiate(at: At, x: Tensor, scratch: Tensor, out: Tensor) -> None:
        of_block = [g[at[0]] if per_image else g for g in grads]
        arguments = x, labels[at], ignore_index, distance, *of_block
        _run_into(out, scratch, 'soft_counts_backward', *arguments)

    return _write_gradient(differentiate, logits)


def _seesaw(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    mitigation: Tensor,
    q: float,
) -> Tensor:
    labels, weight = pixel_rows(target), _rows(pixel_weight)

    def score(at: At, x: Tensor, _: Tensor) -> tuple[Tensor, int]:
        total = x.new_zeros((), dtype=torch.float64)
        rest = None if weight is None else weight[at], mitigation, q, total
        return total, cpu_library.run('seesaw_forward', x, labels[at], ignore_index, *rest)

    total = logits.new_zeros((), dtype=torch.float64)
    for part, unknown in map_row_blocks(score, as_rows(logits)):
        if unknown:
            valid_pixels(target, logits.shape[1], ignore_index)  # says which
        total += part
    return total.float()


def _differentiate_seesaw(
    grads: tuple[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    mitigation: Tensor,
    q: float,
) -> Tensor:
    labels, weight = pixel_rows(target), _rows(pixel_weight)

    def differentiate(at: At, x: Tensor, scratch: Tensor, out: Tensor) -> None:
        rest = None if weight is None else weight[at], mitigation, q, grads[0]
        _run_into(out, scratch, 'seesaw_backward', x, labels[at], ignore_index, *rest)

    return _write_gradient(differentiate, logits)


def _run_into(out: Tensor, scratch: Tensor, name: str, *arguments: Any) -> None:
    """Run a backward of the library, which writes like x, for ``out`` of any type and strides."""
    direct = out.dtype == scratch.dtype and out.stride(2) == 1
    grad = out if direct else scratch
    cpu_library.run(name, *arguments, grad, grad.stride(0), grad.stride(1))
    if not direct:
        out.copy_(grad)


def _resized_class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> tuple[Tensor, ...]:
    def score(tile: _Tile, x: Tensor, scratch: Tensor) -> _Score:
        tile.upsample(logits, out=x)
        return _score_block(x, tile.labels(target), ignore_index, scratch)

    scores = [score for _, score in _map_tiles(score, logits, target.shape, align_corners)]
    return _total(scores, logits, target, ignore_index)


def _differentiate_resized_class_sums(
    grads: tuple[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    align_corners: bool,
) -> Tensor:
    factor = grads[0].contiguous()

    def differentiate(tile: _Tile, x: Tensor, scratch: Tensor) -> Tensor:
        tile.upsample(logits, out=x)
        _differentiate_block(x, tile.labels(target), ignore_index, factor, None, scratch, out=x)
        return tile.downsample(x)

    grad = torch.zeros_like(logits, dtype=compute_dtype(logits))
    # Neighbouring tiles share pixels of the low resolution: added up in a fixed order.
    for tile, part in _map_tiles(differentiate, logits, target.shape, align_corners):
        grad[tile.n, :, tile.rows.input, tile.columns.input] += part
    return grad.to(logits.dtype)


class _Score(NamedTuple):
    """What a block of pixels adds."""

    sums: Tensor  # (C,), float64
    counts: Tensor  # (3, C), int64: the fields of ClassCounts
    unknown: int | bool  # whether there are labels that mean nothing


def _score_block(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    scratch: Tensor,
    weight: Tensor | None = None,
    nll_out: Tensor | None = None,
    valid_out: Tensor | None = None,
) -> _Score:
    """Score a block: x (n, C, k), target (n, k)."""
    num_classes = x.shape[1]
    if cpu_library.usable(x):
        sums = x.new_zeros(num_classes, dtype=torch.float64)
        counts = x.new_zeros(3, num_classes, dtype=torch.int64)
        outputs = sums, counts, nll_out, valid_out
        unknown = cpu_library.run('nll_forward', x, target, ignore_index, weight, *outputs)
        return _Score(sums, counts, unknown)
    labels, valid, unknown = _labels(target, num_classes, ignore_index)
    log_p = torch.log_softmax(x, 1, out=scratch)
    nll = -log_p.gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)
    sums = sum_per_class(
        (nll if weight is None else nll * weight).double(), labels, valid, num_classes
    )
    counts = count_classes(x.argmax(1), labels, num_classes, valid)
    return _Score(sums, torch.stack(counts), unknown)


def _differentiate_block(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor | None,
    pixel_factor: Tensor | None,
    scratch: Tensor,
    out: Tensor,
) -> None:
    """Write to ``out`` the gradient of a block: x (n, C, k), target (n, k)."""
    if cpu_library.usable(x):
        arguments = x, target, ignore_index, pixel_factor, class_factor
        _run_into(out, scratch, 'nll_backward', *arguments)
        return
    labels, valid, _ = _labels(target, x.shape[1], ignore_index)
    # Only the library goes without a factor of the class.
    factor = F.pad(class_factor, (0, 1))[labels]
    if pixel_factor is not None:
        # Not of a pixel that takes no part, whose factor may be NaN.
        factor = torch.where(valid, factor * pixel_factor, 0.0)
    torch.softmax(x, 1, out=scratch)
    index = torch.where(valid, labels, 0).unsqueeze(1)
    scratch.scatter_add_(1, index, scratch.new_full((), -1.0).expand_as(index))
    torch.mul(scratch, factor.unsqueeze(1), out=out)


def _labels(
    target: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor, bool]:
    """(labels, C where a pixel takes no part; which take part; whether there are unknown ids)."""
    known = (target >= 0) & (target < num_classes)
    ignored = torch.zeros_like(known) if ignore_index is None else target == ignore_index
    valid = known & ~ignored
    return torch.where(valid, target, num_classes), valid, not bool((known | ignored).all())


def _total(
    scores: list[_Score], logits: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[Tensor, ...]:
    num_classes = logits.shape[1]
    sums = logits.new_zeros(num_classes, dtype=torch.float64)
    counts = logits.new_zeros(3, num_classes, dtype=torch.int64)
    for score in scores:  # in a fixed order
        if score.unknown:
            valid_pixels(target, num_classes, ignore_index)  # says which
        sums += score.sums
        counts += score.counts
    return sums.to(compute_dtype(logits)), *counts.unbind()


class _Axis(NamedTuple):
    """Bilinear resizing along one axis: what each stretch of the output takes from the input."""

    output: slice
    input: slice
    weight: Tensor  # (output, input)


@lru_cache(maxsize=64)
def _axis(
    size_in: int,
    size_out: int,
    stretch: int,
    align_corners: bool,
    dtype: torch.dtype,
) -> list[_Axis]:
    weight = resizing_weight(size_in, size_out, align_corners, dtype)
    axis = []
    for start in range(0, size_out, stretch):
        output = slice(start, min(start + stretch, size_out))
        used = weight[output].any(0).nonzero().flatten().tolist()
        taken = slice(used[0], used[-1] + 1)
        axis.append(_Axis(output, taken, weight[output, taken].contiguous()))
    return axis


class _Tile(NamedTuple):
    """One rectangle of the full-resolution image, and the low-resolution one it comes from."""

    n: int
    rows: _Axis
    columns: _Axis

    @property
    def at(self) -> tuple[int, slice, slice]:
        return self.n, self.rows.output, self.columns.output

    @property
    def num_pixels(self) -> int:
        return len(self.rows.weight) * len(self.columns.weight)

    def labels(self, target: Tensor) -> Tensor:
        return target[self.at].reshape(1, -1).contiguous()

    def upsample(self, logits: Tensor, out: Tensor) -> None:
        """Full-resolution logits of the tile, (1, C, pixels), written to ``out``."""
        low = logits[self.n, :, self.rows.input, self.columns.input].to(out.dtype)
        # Columns first, while the rows are few.
        wide = torch.matmul(low, self.columns.weight.t())
        torch.matmul(self.rows.weight, wide, out=out.view(len(wide), -1, wide.shape[2]))

    def downsample(self, grad: Tensor) -> Tensor:
        """What the gradient of the tile, (1, C, pixels), gives to the low resolution."""
        grad = grad.view(grad.shape[1], len(self.rows.weight), -1)
        return torch.matmul(torch.matmul(self.rows.weight.t(), grad), self.columns.weight)


def _map_tiles(
    work: Callable[[_Tile, Tensor, Tensor], Result],
    logits: Tensor,
    size: torch.Size,
    align_corners: bool,
) -> list[tuple[_Tile, Result]]:
    """``work`` on every tile of a target (N, H, W), with two tensors (1, C, pixels) to use."""
    num_classes, (height, width) = logits.shape[1], size[1:]
    dtype = compute_dtype(logits)
    num_columns = min(TILE_COLUMNS, width)
    num_rows = min(max(cpu_blocks.TORCH_BLOCK // (num_classes * num_columns), 1), height)
    rows = _axis(logits.shape[2], height, num_rows, align_corners, dtype)
    columns = _axis(logits.shape[3], width, num_columns, align_corners, dtype)
    tiles = [_Tile(n, row, column) for n in range(size[0]) for row in rows for column in columns]

    def start() -> Callable[[_Tile], tuple[_Tile, Result]]:
        buffers = torch.empty(2, num_classes * num_rows * num_columns, dtype=dtype, device='cpu')

        def on_tile(tile: _Tile) -> tuple[_Tile, Result]:
            shape = 1, num_classes, tile.num_pixels
            x, scratch = (b[: num_classes * tile.num_pixels].view(shape) for b in buffers)
            return tile, work(tile, x, scratch)

        return on_tile

    with full_precision(), torch.autocast('cpu', enabled=False):
        return map_on_threads(start, tiles)


def _over_blocks(op: _Operation) -> Callable[..., Any]:
    return partial(_OverBlocks.apply, op)


# Without the library, for float64 too, blocks go through torch operations, which is worth it where
# a pass over the logits can be saved.
CPU_WITHOUT_LIBRARY = PLAIN._replace(
    class_sums=_over_blocks(_Operation(_score, _differentiate_class_sums, PLAIN.class_sums)),
    resized_class_sums=_over_blocks(
        _Operation(_resized_class_sums, _differentiate_resized_class_sums, PLAIN.resized_class_sums)
    ),
    lovasz_softmax=lovasz_softmax,
)
CPU = CPU_WITHOUT_LIBRARY._replace(
    pixel_nll=_over_blocks(_Operation(_pixel_nll, _differentiate_pixel_nll, PLAIN.pixel_nll)),
    soft_counts=_over_blocks(
        _Operation(_soft_counts, _differentiate_soft_counts, PLAIN.soft_counts, differentiable=2)
    ),
    seesaw=_over_blocks(_Operation(_seesaw, _differentiate_seesaw, PLAIN.seesaw)),
)
