"""Per-class sums of the negative log-likelihood, block by block.

The same numbers as the plain path of :func:`mmseg_recall.functional.class_nll_sums`. A block of
the logits is read into the cache once and scored there; the backward computes the softmax again
and writes the gradient once. Nothing of the size of the logits is allocated besides that gradient.
A block goes through a compiled kernel where it can (kernels.py), else through torch operations.

:func:`fused_resized_class_nll_sums` does the same from low-resolution logits: a tile is upsampled
where it is scored, and its gradient is brought down again at once, so that neither the
full-resolution logits nor their gradient ever exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import gpu, kernels
from .blocks import (
    Pixels,
    Result,
    as_rows,
    block_size,
    from_rows,
    full_precision,
    in_huge_pages,
    map_on_threads,
    map_row_blocks,
    pixel_rows,
    refuse_double_backward,
    resizing_weight,
)
from .checks import compute_dtype, valid_pixels
from .counts import ClassCounts, count_classes

# Columns of a tile: narrow, because what upsampling multiplies with grows with it, yet wide enough
# for a matrix product.
CPU_TILE_COLUMNS = 128


def fused_class_nll_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, pixel_weight: Tensor | None = None
) -> tuple[Tensor, ClassCounts]:
    """The fused path of :func:`mmseg_recall.functional.class_nll_sums`, once shapes are checked.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        pixel_weight: (N, ...), a constant factor per pixel of the sums, or None.

    Returns:
        (sums, counts), as :func:`class_nll_sums`. Once differentiable.
    """
    if gpu.usable(logits):
        return gpu.class_nll_sums(logits, target.long(), ignore_index, pixel_weight)
    target = readable(logits, target, ignore_index)
    sums, *counts = _ClassNllSums.apply(logits, target, ignore_index, pixel_weight)
    return sums, ClassCounts(*counts)


def fused_resized_class_nll_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> tuple[Tensor, ClassCounts]:
    """The fused path of :func:`mmseg_recall.functional.resized_class_nll_sums`, likewise.

    Args:
        logits: (N, C, h, w), any floating type.
        target: (N, H, W), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        align_corners: As in F.interpolate.

    Returns:
        (sums, counts), as :func:`class_nll_sums`. Once differentiable.
    """
    if logits.shape[2:] == target.shape[1:]:
        return fused_class_nll_sums(logits, target, ignore_index)
    if gpu.usable(logits):
        return gpu.resized_class_nll_sums(logits, target.long(), ignore_index, align_corners)
    target = readable(logits, target, ignore_index)
    sums, *counts = _ResizedClassNllSums.apply(logits, target, ignore_index, align_corners)
    return sums, ClassCounts(*counts)


def readable(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """``target`` as blocks are read from it; refuses unknown ids unless the kernel will see them.

    Raises:
        ValueError: As :func:`valid_pixels`.
    """
    target = target.long().contiguous()
    if not kernels.usable(logits):
        valid_pixels(target, logits.shape[1], ignore_index)
    return target


class _ClassNllSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        ignore_index: int | None,
        pixel_weight: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, target, pixel_weight)
        ctx.ignore_index = ignore_index
        sums, counts = score_rows(logits, target, ignore_index, pixel_weight)
        ctx.mark_non_differentiable(*counts)
        return sums, *counts

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target, pixel_weight = ctx.saved_tensors
        grad = differentiate_rows(logits, target, ctx.ignore_index, grad_sums, pixel_weight)
        return grad, None, None, None


def score_rows(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None = None,
    nll: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, ClassCounts]:
    """Sums and counts of (N, C, ...); by the kernel also -log p and valid per pixel, written."""
    pixels = [_pixel_rows(t, logits) for t in (target, pixel_weight, nll, valid)]

    def score(at: Pixels, x: Tensor, scratch: Tensor) -> _Score:
        labels, *others = (None if t is None else t[at] for t in pixels)
        return _score(x, labels, ignore_index, scratch, *others)

    return _total(map_row_blocks(score, as_rows(logits)), logits, target, ignore_index)


def differentiate_rows(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor,
    pixel_factor: Tensor | None,
) -> Tensor:
    """The gradient of the logits: softmax less one-hot, times the factors of class and pixel."""
    rows = as_rows(logits)
    grad = in_huge_pages(torch.empty_like(rows))
    labels, factor = (_pixel_rows(t, logits) for t in (target, pixel_factor))
    class_factor = class_factor.contiguous()

    def differentiate(at: Pixels, x: Tensor, scratch: Tensor) -> None:
        pixel_factor = None if factor is None else factor[at]
        out = grad[at[0], :, at[1]]
        _differentiate(x, labels[at], ignore_index, class_factor, pixel_factor, scratch, out)

    map_row_blocks(differentiate, rows)
    return from_rows(grad, logits)


def _pixel_rows(image: Tensor | None, logits: Tensor) -> Tensor | None:
    if image is not None and image.is_floating_point():
        image = image.to(compute_dtype(logits))
    return None if image is None else pixel_rows(image.contiguous())


class _ResizedClassNllSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
    ) -> tuple[Tensor, ...]:
        def score(tile: _Tile, x: Tensor, scratch: Tensor) -> _Score:
            tile.upsample(logits, out=x)
            return _score(x, tile.labels(target), ignore_index, scratch)

        scores = [score for _, score in _map_tiles(score, logits, target.shape, align_corners)]
        ctx.save_for_backward(logits, target)
        ctx.ignore_index, ctx.align_corners = ignore_index, align_corners
        sums, counts = _total(scores, logits, target, ignore_index)
        ctx.mark_non_differentiable(*counts)
        return sums, *counts

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target = ctx.saved_tensors
        factor = grad_sums.contiguous()

        def differentiate(tile: _Tile, x: Tensor, scratch: Tensor) -> Tensor:
            tile.upsample(logits, out=x)
            labels = tile.labels(target)
            _differentiate(x, labels, ctx.ignore_index, factor, None, scratch, out=x)
            return tile.downsample(x)

        grad = torch.zeros_like(logits, dtype=compute_dtype(logits))
        # Neighbouring tiles share pixels of the low resolution: added up in a fixed order.
        for tile, part in _map_tiles(differentiate, logits, target.shape, ctx.align_corners):
            grad[tile.n, :, tile.rows.input, tile.columns.input] += part
        return grad.to(logits.dtype), None, None, None


class _Score(NamedTuple):
    """What a block of pixels adds."""

    sums: Tensor  # (C,), float64
    counts: Tensor  # (3, C), int64: the fields of ClassCounts
    unknown: int = 0  # labels that mean nothing, where they have not been looked for before


def _score(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    scratch: Tensor,
    weight: Tensor | None = None,
    nll_out: Tensor | None = None,
    valid_out: Tensor | None = None,
) -> _Score:
    """Score a block: x (C, k), target (k,)."""
    num_classes = len(x)
    sums = torch.zeros(num_classes + 1, dtype=torch.float64, device=x.device)
    if kernels.usable(x):
        counts = torch.zeros(3, num_classes, dtype=torch.int64, device=x.device)
        unknown = kernels.run(
            'nll_forward', x, target, ignore_index, weight, sums, counts, nll_out, valid_out
        )
        return _Score(sums[:-1], counts, unknown)
    labels, valid = _labels(target, num_classes, ignore_index)
    log_p = torch.log_softmax(x, 0, out=scratch)
    nll = -log_p.gather(0, torch.where(valid, labels, 0).unsqueeze(0)).squeeze(0)
    # Pixels that take no part fall into an extra class.
    sums.index_add_(0, labels, (nll if weight is None else nll * weight).double())
    counts = count_classes(x.argmax(0), labels, num_classes, valid)
    return _Score(sums[:-1], torch.stack(counts))


def _differentiate(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor,
    pixel_factor: Tensor | None,
    scratch: Tensor,
    out: Tensor,
) -> None:
    """Write to ``out`` the gradient of a block: x (C, k), target (k,)."""
    if kernels.usable(x):
        arguments = x, target, ignore_index, pixel_factor, class_factor
        kernels.run_into(out, scratch, 'nll_backward', *arguments)
        return
    labels, valid = _labels(target, len(x), ignore_index)
    factor = F.pad(class_factor, (0, 1)).index_select(0, labels)
    if pixel_factor is not None:
        # Not of a pixel that takes no part, whose factor may be NaN.
        factor = torch.where(valid, factor * pixel_factor, 0.0)
    torch.softmax(x, 0, out=scratch)
    index = torch.where(valid, labels, 0).unsqueeze(0)
    scratch.scatter_add_(0, index, scratch.new_full((), -1.0).expand_as(index))
    torch.mul(scratch, factor, out=out)


def _labels(target: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """(labels, valid), labels being C where a pixel takes no part."""
    valid = (target >= 0) & (target < num_classes)
    if ignore_index is not None:
        valid &= target != ignore_index
    return torch.where(valid, target, num_classes), valid


def _total(
    scores: list[_Score], logits: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[Tensor, ClassCounts]:
    num_classes = logits.shape[1]
    if any(score.unknown for score in scores):
        valid_pixels(target, num_classes, ignore_index)  # says which
    sums = torch.zeros(num_classes, dtype=torch.float64, device=logits.device)
    counts = torch.zeros(3, num_classes, dtype=torch.int64, device=logits.device)
    for score in scores:  # in a fixed order
        sums += score.sums
        counts += score.counts
    return sums.to(compute_dtype(logits)), ClassCounts(*(c.clone() for c in counts))


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
    device: torch.device,
) -> list[_Axis]:
    weight = resizing_weight(size_in, size_out, align_corners, dtype)
    axis = []
    for start in range(0, size_out, stretch):
        output = slice(start, min(start + stretch, size_out))
        used = weight[output].any(0).nonzero().flatten().tolist()
        taken = slice(used[0], used[-1] + 1)
        axis.append(_Axis(output, taken, weight[output, taken].contiguous().to(device)))
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
        return target[self.at].flatten().contiguous()

    def upsample(self, logits: Tensor, out: Tensor) -> None:
        """Full-resolution logits of the tile, (C, pixels), written to ``out``."""
        low = logits[self.n, :, self.rows.input, self.columns.input].to(out.dtype)
        # Columns first, while the rows are few.
        wide = torch.matmul(low, self.columns.weight.t())
        torch.matmul(self.rows.weight, wide, out=out.view(len(wide), -1, wide.shape[2]))

    def downsample(self, grad: Tensor) -> Tensor:
        """What the gradient of the tile, (C, pixels), gives to the low resolution."""
        grad = grad.view(len(grad), len(self.rows.weight), -1)
        return torch.matmul(torch.matmul(self.rows.weight.t(), grad), self.columns.weight)


def _map_tiles(
    work: Callable[[_Tile, Tensor, Tensor], Result],
    logits: Tensor,
    size: torch.Size,
    align_corners: bool,
) -> list[tuple[_Tile, Result]]:
    """``work`` on every tile of a target of size (N, H, W), with two tensors (C, pixels) to use."""
    num_classes, (height, width) = logits.shape[1], size[1:]
    dtype, device = compute_dtype(logits), logits.device
    num_columns = min(CPU_TILE_COLUMNS, width) if device.type == 'cpu' else width
    num_rows = min(max(block_size(device) // (num_classes * num_columns), 1), height)
    rows = _axis(logits.shape[2], height, num_rows, align_corners, dtype, device)
    columns = _axis(logits.shape[3], width, num_columns, align_corners, dtype, device)
    tiles = [_Tile(n, row, column) for n in range(size[0]) for row in rows for column in columns]

    def start() -> Callable[[_Tile], tuple[_Tile, Result]]:
        buffers = torch.empty(2, num_classes * num_rows * num_columns, dtype=dtype, device=device)

        def on_tile(tile: _Tile) -> tuple[_Tile, Result]:
            shape = num_classes, tile.num_pixels
            x, scratch = (b[: shape[0] * shape[1]].view(shape) for b in buffers)
            return tile, work(tile, x, scratch)

        return on_tile

    with full_precision():
        return map_on_threads(start, tiles, device)
