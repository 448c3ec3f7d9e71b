"""Per-class sums of the negative log-likelihood, block by block.

The same numbers as the plain path of :func:`mmseg_recall.functional.class_nll_sums`. A block of
the logits is read into the cache once and scored there; the backward computes the softmax again
and writes the gradient once. Nothing of the size of the logits is allocated besides that gradient.

:func:`resized_class_nll_sums` does the same from low-resolution logits: a tile is upsampled where
it is scored, and its gradient is brought down again at once, so that neither the full-resolution
logits nor their gradient ever exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import (
    Pixels,
    Result,
    as_rows,
    block_size,
    empty_like,
    from_rows,
    map_on_threads,
    map_row_blocks,
    pixel_rows,
    refuse_double_backward,
)
from .checks import check_shapes, compute_dtype, valid_pixels
from .counts import ClassCounts, count_labels

# Columns of a tile: narrow, because what upsampling multiplies with grows with it, yet wide enough
# for a matrix product.
CPU_TILE_COLUMNS = 128


def fused_class_nll_sums(
    logits: Tensor, target: Tensor, valid: Tensor, pixel_weight: Tensor | None = None
) -> tuple[Tensor, ClassCounts]:
    """The fused path of :func:`mmseg_recall.functional.class_nll_sums`, behind its checks.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), int64; ids in [0, C) where ``valid``.
        valid: (N, ...), bool: the pixels that take part.
        pixel_weight: (N, ...), a constant factor per pixel of the sums, or None.

    Returns:
        (sums, counts), as :func:`class_nll_sums`. Once differentiable.
    """
    sums, *counts = _ClassNllSums.apply(logits, target, valid, pixel_weight)
    return sums, ClassCounts(*counts)


def resized_class_nll_sums(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    ignore_index: int | None = 255,
) -> tuple[Tensor, ClassCounts]:
    """:func:`class_nll_sums` of the logits resized bilinearly to the target, without resizing them.

    Equal to ``class_nll_sums(F.interpolate(logits, target.shape[1:], mode='bilinear',
    align_corners=align_corners), target)``. All it allocates is a tile and the gradient of the
    low-resolution logits.

    Args:
        logits: (N, C, h, w), any floating type; float16 and bfloat16 compute in float32.
        target: (N, H, W), integer class ids.
        align_corners: As in F.interpolate.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        (sums, counts), as :func:`class_nll_sums`. Once differentiable.

    Raises:
        ValueError: Shapes that do not fit; for the target, as :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> sums, counts = resized_class_nll_sums(logits, target)
        >>> sums / target.numel()
        tensor([0.6931, 0.0000])
        >>> counts.true_positives
        tensor([64,  0])
    """
    if logits.dim() != 4 or target.dim() != 3:
        raise ValueError(
            'logits must be (N, C, h, w) and target (N, H, W), got '
            f'{tuple(logits.shape)} and {tuple(target.shape)}'
        )
    check_shapes(logits[:, :, :1, :1].expand(-1, -1, *target.shape[1:]), target)
    target = target.long()
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    if logits.shape[2:] == target.shape[1:]:
        return fused_class_nll_sums(logits, target, valid)
    sums, *counts = _ResizedClassNllSums.apply(logits, target, valid, align_corners)
    return sums, ClassCounts(*counts)


class _ClassNllSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, valid: Tensor, pixel_weight: Tensor | None
    ) -> tuple[Tensor, ...]:
        labels, valid_rows, weight = (pixel_rows(t) for t in (target, valid, pixel_weight))

        def score(at: Pixels, x: Tensor, scratch: Tensor) -> _Score:
            block_labels = torch.where(valid_rows[at], labels[at], len(x))
            return _score(x, block_labels, scratch, None if weight is None else weight[at])

        scores = map_row_blocks(score, as_rows(logits))
        ctx.save_for_backward(logits, target, valid, pixel_weight)
        return _results(ctx, scores, logits)

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target, valid, pixel_weight = ctx.saved_tensors
        labels, valid_rows, weight = (pixel_rows(t) for t in (target, valid, pixel_weight))
        rows = as_rows(logits)
        grad = empty_like(rows)
        grad_of_label = F.pad(grad_sums, (0, 1))

        def differentiate(at: Pixels, x: Tensor, scratch: Tensor) -> None:
            block_labels = torch.where(valid_rows[at], labels[at], len(x))
            factor = grad_of_label.index_select(0, block_labels)
            if weight is not None:
                factor = factor * weight[at]
            residual = _softmax_minus_one_hot(x, block_labels, scratch)
            torch.mul(residual, factor, out=grad[at[0], :, at[1]])

        map_row_blocks(differentiate, rows)
        return from_rows(grad, logits), None, None, None


class _ResizedClassNllSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, valid: Tensor, align_corners: bool
    ) -> tuple[Tensor, ...]:
        def score(tile: _Tile, x: Tensor, scratch: Tensor) -> _Score:
            labels = torch.where(valid[tile.at], target[tile.at], len(x))
            return _score(tile.upsample(logits, out=x), labels.flatten(), scratch)

        scores = _map_tiles(score, logits, target.shape, align_corners)
        ctx.save_for_backward(logits, target, valid)
        ctx.align_corners = align_corners
        return _results(ctx, [score for _, score in scores], logits)

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target, valid = ctx.saved_tensors
        grad_of_label = F.pad(grad_sums, (0, 1))

        def differentiate(tile: _Tile, x: Tensor, scratch: Tensor) -> Tensor:
            labels = torch.where(valid[tile.at], target[tile.at], len(x)).flatten()
            residual = _softmax_minus_one_hot(tile.upsample(logits, out=x), labels, scratch)
            return tile.downsample(residual.mul_(grad_of_label.index_select(0, labels)))

        grad = torch.zeros(logits.shape, dtype=compute_dtype(logits), device=logits.device)
        # Neighbouring tiles share pixels of the low resolution: added up in a fixed order.
        for tile, part in _map_tiles(differentiate, logits, target.shape, ctx.align_corners):
            grad[tile.n, :, tile.rows.input, tile.columns.input] += part
        return grad.to(logits.dtype), None, None, None


class _Score(NamedTuple):
    """What a block of pixels adds; class C collects the pixels that take no part.

    The missed pixels of each class (first column) are kept apart from the hit ones (second), so
    that one pass counts both.
    """

    sums: Tensor  # (C + 1, 2), float64
    pixels: Tensor  # (C + 1, 2), int64
    predicted: Tensor  # (C + 1,), int64


def _score(x: Tensor, labels: Tensor, scratch: Tensor, weight: Tensor | None = None) -> _Score:
    """Score a block: x (C, k), labels (k,) with C for pixels that take no part."""
    nll = _at_label(torch.log_softmax(x, 0, out=scratch), labels).neg_()
    if weight is not None:
        nll = nll * weight
    hit, predicted = _predictions(x, labels, scratch)
    bins = hit.long().add_(labels, alpha=2)
    size = 2 * len(predicted)
    sums = torch.zeros(size, dtype=torch.float64, device=x.device)
    sums.index_add_(0, bins, nll.double())
    return _Score(sums.view(-1, 2), count_labels(bins, size).view(-1, 2), predicted)


def _predictions(x: Tensor, labels: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """Where the largest of x is the label, and how many pixels that take part it is each class."""
    num_classes = len(x)
    valid = labels < num_classes
    if x.device.type == 'cpu':
        # torch's argmax costs more than the rest of the block. Where no two classes share the top,
        # those that equal it are the predictions; a NaN equals nothing.
        top = torch.amax(x, 0)
        is_top = torch.eq(x, top, out=scratch)
        predicted = torch.mv(is_top, valid.to(x.dtype))
        if predicted.sum() == valid.sum() and not top.sum().isnan():
            return _at_label(is_top, labels), F.pad(predicted.long(), (0, 1))
    prediction = x.max(0).indices
    bins = torch.where(valid, prediction, num_classes)
    return prediction == labels, count_labels(bins, num_classes + 1)


def _results(ctx: Any, scores: list[_Score], logits: Tensor) -> tuple[Tensor, ...]:
    bins = logits.shape[1] + 1
    sums = torch.zeros(bins, 2, dtype=torch.float64, device=logits.device)
    pixels, predicted = sums.long(), sums[:, 0].long()
    for score in scores:
        sums += score.sums
        pixels += score.pixels
        predicted += score.predicted
    sums, pixels, predicted = sums[:-1], pixels[:-1], predicted[:-1]
    counts = ClassCounts(pixels.sum(1), pixels[:, 1].clone(), predicted)
    ctx.mark_non_differentiable(*counts)
    return sums.sum(1).to(compute_dtype(logits)), *counts


def _at_label(x: Tensor, labels: Tensor) -> Tensor:
    """x[label] of each column of (C, k); of the last class where the label is C."""
    return x.gather(0, labels.clamp(max=len(x) - 1).unsqueeze(0)).squeeze(0)


def _softmax_minus_one_hot(x: Tensor, labels: Tensor, out: Tensor) -> Tensor:
    """The gradient of -log p of the label with respect to x, (C, k), written to ``out``."""
    torch.softmax(x, 0, out=out)
    index = labels.clamp(max=len(x) - 1).unsqueeze(0)
    return out.scatter_add_(0, index, out.new_full((), -1.0).expand_as(index))


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
    # Resizing the unit vectors gives F.interpolate's own weights.
    unit = torch.eye(size_in, dtype=dtype).unsqueeze(0)
    weight = F.interpolate(unit, size_out, mode='linear', align_corners=align_corners)[0].t()
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

    def upsample(self, logits: Tensor, out: Tensor) -> Tensor:
        """Full-resolution logits of the tile, (C, pixels), written to ``out``."""
        low = logits[self.n, :, self.rows.input, self.columns.input].to(out.dtype)
        tall = torch.matmul(self.rows.weight, low).flatten(0, 1)
        torch.mm(tall, self.columns.weight.t(), out=out.view(len(tall), -1))
        return out

    def downsample(self, grad: Tensor) -> Tensor:
        """What the gradient of the tile, (C, pixels), gives to the low resolution."""
        num_rows, num_columns = len(self.rows.weight), len(self.columns.weight)
        narrow = torch.mm(grad.view(-1, num_columns), self.columns.weight)
        return torch.matmul(self.rows.weight.t(), narrow.view(len(grad), num_rows, -1))


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

    return map_on_threads(start, tiles, device)
