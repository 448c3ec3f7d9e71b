"""On CPU: block by block, by the C functions of cpu_kernels.c.

A block of the logits is read into the cache once and scored there; the backward computes the
softmax again and writes the gradient once. Nothing of the size of the logits is allocated besides
that gradient.

The resized class sums do the same from low-resolution logits: a tile is upsampled where it is
scored, and its gradient is brought down again at once, so that neither the full-resolution logits
nor their gradient ever exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import compute_dtype, valid_pixels
from ..counts import ClassCounts
from ..ranks import num_ranks
from . import cpu_blocks, cpu_library
from .cpu_blocks import (
    Result,
    full_precision,
    gradient_by_blocks,
    map_blocks,
    map_on_threads,
)
from .cpu_lovasz import Count, Slopes, differentiate_lovasz, lovasz_softmax, score_blocks
from .engine import Engine, Weigh
from .operation import Operation, differentiated
from .plain import PLAIN
from .rows import resizing_weight

# Columns of a tile: narrow, because what upsampling multiplies with grows with it, yet wide enough
# for a matrix product.
TILE_COLUMNS = 128


Outputs = tuple[tuple[Tensor, ...], tuple[()]]
"""Of an operation, whose backward takes its inputs alone."""

Score = tuple[Tensor, int]
"""Of a block: int64 (4, C), S_c as the bits of float64, then the counts; and how many labels mean
nothing.
"""


def _score(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    *outputs: Tensor,
) -> list[Tensor]:
    """Sums and counts of (N, C, ...); by the library also -log p and valid per pixel, written."""

    def score(images: slice, x: Tensor, _: Any, labels: Tensor, *rest: Tensor) -> Score:
        return _score_block(x, labels, ignore_index, *rest)

    scores = map_blocks(score, logits, target, pixel_weight, *outputs)
    return _total(scores, logits, target, ignore_index)


def _class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, pixel_weight: Tensor | None
) -> Outputs:
    sums, *counts = _score(logits, target, ignore_index, pixel_weight)
    return (sums.float(), *counts), ()


def _differentiate(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor | None,
    pixel_factor: Tensor | None,
    scale: Tensor | None = None,
) -> Tensor:
    """The gradient of the logits: softmax less one-hot, times scale and factors of class, pixel."""

    def differentiate(images: slice, x: Tensor, out: Tensor, labels: Tensor, factor: Any) -> None:
        _differentiate_block(x, labels, ignore_index, class_factor, factor, out, scale)

    return gradient_by_blocks(differentiate, logits, target, pixel_factor)


def _differentiate_class_sums(
    grads: tuple[Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
) -> Tensor:
    factor = grads[0].contiguous()
    return _differentiate(logits, target, ignore_index, factor, pixel_weight)


def _weighted_mean(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    weigh: Weigh,
    normalization: str,
) -> Tensor:
    target = target.contiguous()
    sums, *counts = _score(logits, target, ignore_index, pixel_weight)
    weight, pixels = weigh(ClassCounts(*counts))
    of_classes = sums, weight, pixels, normalization == 'weights'
    return _mean_of_sums(logits, target, ignore_index, pixel_weight, *of_classes)


def _differentiate_mean(
    grads: tuple[Tensor],
    saved: list[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    *of_classes: Any,
) -> Tensor:
    return _differentiate(logits, target, ignore_index, saved[0], pixel_weight, grads[0])


def _plain_mean(*inputs: Any) -> Tensor:
    _, (factor,) = _mean(*inputs)
    return torch.dot(factor, PLAIN.class_sums(*inputs[:4])[0])


def _mean(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    *of_classes: Any,
) -> tuple[tuple[Tensor], tuple[Tensor]]:
    mean, factor = cpu_library.weighted_mean(*of_classes)
    return (mean,), (factor,)


_mean_of_sums = differentiated(Operation(_mean, _differentiate_mean, _plain_mean))


def _pixel_nll(logits: Tensor, target: Tensor, ignore_index: int | None) -> Outputs:
    nll = target.new_empty(target.shape, dtype=torch.float32)
    valid = target.new_empty(target.shape, dtype=torch.bool)
    _score(logits, target, ignore_index, None, nll, valid)
    return (nll, valid), ()


def _differentiate_pixel_nll(
    grads: tuple[Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
) -> Tensor:
    return _differentiate(logits, target, ignore_index, None, grads[0].contiguous())


def _soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> Outputs:
    num_classes, num_images = logits.shape[1], len(logits) if per_image else 1

    def score(
        images: slice, x: Tensor, _: Any, labels: Tensor
    ) -> tuple[slice, Tensor, Tensor, int]:
        images = images if per_image else slice(0, 1)
        size = images.stop - images.start, num_classes
        sums = x.new_zeros(2, *size, dtype=torch.float64)
        pixels = x.new_zeros(size, dtype=torch.int64)
        rest = num_classes if per_image else 0, sums[0], sums[1], pixels
        unknown = cpu_library.run('soft_counts_forward', x, labels, ignore_index, *rest)
        return images, sums, pixels, unknown

    total = logits.new_zeros(2, num_images, num_classes, dtype=torch.float64)
    pixels = logits.new_zeros(num_images, num_classes, dtype=torch.int64)
    for images, block_sums, block_pixels, unknown in map_blocks(score, logits, target):
        if unknown:
            valid_pixels(target, num_classes, ignore_index)  # says which
        total[:, images] += block_sums
        pixels[images] += block_pixels
    intersection, mass = total.float().unbind()
    return (intersection, mass, pixels), ()


def _differentiate_soft_counts(
    grads: tuple[Tensor, Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    per_image: bool,
) -> Tensor:
    grads = grads[0].contiguous(), grads[1].contiguous()
    distance = logits.shape[1] if per_image else 0

    def differentiate(images: slice, x: Tensor, out: Tensor, labels: Tensor) -> None:
        of_block = [g[images] if per_image else g for g in grads]
        where = out, out.stride(0), out.stride(1)
        cpu_library.run(
            'soft_counts_backward', x, labels, ignore_index, distance, *of_block, *where
        )

    return gradient_by_blocks(differentiate, logits, target)


def _adjusted_nll(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    adjustment: Tensor,
    q: float,
) -> Outputs:
    table = adjustment, int(adjustment.shape[1] > 1), q

    def score(
        images: slice, x: Tensor, _: Any, labels: Tensor, weight: Any
    ) -> tuple[Tensor, Tensor, int]:
        total = x.new_zeros((), dtype=torch.float64)
        pixels = x.new_zeros((), dtype=torch.int64)
        rest = weight, *table, total, pixels
        unknown = cpu_library.run('adjusted_nll_forward', x, labels, ignore_index, *rest)
        return total, pixels, unknown

    total = logits.new_zeros((), dtype=torch.float64)
    pixels = logits.new_zeros((), dtype=torch.int64)
    for part, number, unknown in map_blocks(score, logits, target, pixel_weight):
        if unknown:
            valid_pixels(target, logits.shape[1], ignore_index)  # says which
        total += part
        pixels += number
    return (total.float(), pixels), ()


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
    table = adjustment, int(adjustment.shape[1] > 1), q

    def differentiate(images: slice, x: Tensor, out: Tensor, labels: Tensor, weight: Any) -> None:
        rest = weight, *table, grads[0], out, out.stride(0), out.stride(1)
        cpu_library.run('adjusted_nll_backward', x, labels, ignore_index, *rest)

    return gradient_by_blocks(differentiate, logits, target, pixel_weight)


def _resized_class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> Outputs:
    def score(tile: _Tile, x: Tensor, scratch: Tensor) -> Score:
        tile.upsample(logits, out=x)
        return _score_block(x, tile.labels(target), ignore_index, None)

    scores = [score for _, score in _map_tiles(score, logits, target.shape, align_corners)]
    sums, *counts = _total(scores, logits, target, ignore_index)
    return (sums.float(), *counts), ()


def _differentiate_resized_class_sums(
    grads: tuple[Tensor],
    _: object,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    align_corners: bool,
) -> Tensor:
    factor = grads[0].contiguous()

    def differentiate(tile: _Tile, x: Tensor, scratch: Tensor) -> Tensor:
        tile.upsample(logits, out=x)
        _differentiate_block(x, tile.labels(target), ignore_index, factor, None, scratch)
        return tile.downsample(scratch)

    return _add_tiles(differentiate, logits, target.shape, align_corners)


def _resized_class_sums_and_lovasz(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool, sync: bool
) -> tuple[tuple[Tensor, ...], Slopes]:
    scores: list[Score] = []

    def on_tiles(count: Count) -> list[int]:
        is_first = not scores

        def score(tile: _Tile, x: Tensor, scratch: Tensor) -> tuple[int, list[Score]]:
            tile.upsample(logits, out=x)
            labels = tile.labels(target)
            unknown = count(x, labels)
            return unknown, [_score_block(x, labels, ignore_index, None)] if is_first else []

        results = [r for _, r in _map_tiles(score, logits, target.shape, align_corners)]
        scores.extend(s for _, of_tile in results for s in of_tile)
        return [unknown for unknown, _ in results]

    lovasz, slopes = score_blocks(on_tiles, logits.shape[1], target, ignore_index, sync)
    sums, *counts = _total(scores, logits, target, ignore_index)
    return (sums.float(), lovasz, *counts), slopes


def _differentiate_resized_class_sums_and_lovasz(
    grads: tuple[Tensor, Tensor],
    saved: list[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    align_corners: bool,
    sync: bool,
) -> Tensor:
    factor, scale = grads[0].contiguous(), grads[1] * num_ranks(sync)

    def differentiate(tile: _Tile, x: Tensor, scratch: Tensor) -> Tensor:
        tile.upsample(logits, out=x)
        labels = tile.labels(target)
        _differentiate_block(x, labels, ignore_index, factor, None, scratch)
        differentiate_lovasz(x, labels, ignore_index, tuple(saved), scale, x)
        return tile.downsample(scratch.add_(x))

    return _add_tiles(differentiate, logits, target.shape, align_corners)


def _score_block(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    weight: Tensor | None,
    nll: Tensor | None = None,
    valid: Tensor | None = None,
) -> Score:
    """Score a block: x (n, C, k), target (n, k)."""
    score = torch.zeros(4, x.shape[1], dtype=torch.int64, device='cpu')
    outputs = score, nll, valid
    return score, cpu_library.run('nll_forward', x, target, ignore_index, weight, *outputs)


def _differentiate_block(
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_factor: Tensor | None,
    pixel_factor: Tensor | None,
    out: Tensor,
    scale: Tensor | None = None,
) -> None:
    """Write the gradient of a block to ``out``."""
    arguments = pixel_factor, class_factor, scale, out, out.stride(0), out.stride(1)
    cpu_library.run('nll_backward', x, target, ignore_index, *arguments)


def _total(
    scores: list[Score], logits: Tensor, target: Tensor, ignore_index: int | None
) -> list[Tensor]:
    """S_c, float64, and the three counts."""
    if not scores:
        scores = [(target.new_zeros(4, logits.shape[1]), 0)]
    (total, unknown), *others = scores
    sums, *counts = total.unbind()
    sums = sums.view(torch.float64)
    for score, unknown_of_block in others:  # in a fixed order
        sums += score[0].view(torch.float64)
        total[1:] += score[1:]
        unknown += unknown_of_block
    if unknown:
        valid_pixels(target, logits.shape[1], ignore_index)  # says which
    return [sums, *counts]


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


def _add_tiles(
    work: Callable[[_Tile, Tensor, Tensor], Tensor],
    logits: Tensor,
    size: torch.Size,
    align_corners: bool,
) -> Tensor:
    """The gradient of the logits, from what each tile of a target (N, H, W) gives to it."""
    grad = torch.zeros_like(logits, dtype=compute_dtype(logits))
    # Neighbouring tiles share pixels of the low resolution: added up in a fixed order.
    for tile, part in _map_tiles(work, logits, size, align_corners):
        grad[tile.n, :, tile.rows.input, tile.columns.input] += part
    return grad


CPU = Engine(
    class_sums=differentiated(Operation(_class_sums, _differentiate_class_sums, PLAIN.class_sums)),
    resized_class_sums=differentiated(
        Operation(_resized_class_sums, _differentiate_resized_class_sums, PLAIN.resized_class_sums)
    ),
    pixel_nll=differentiated(Operation(_pixel_nll, _differentiate_pixel_nll, PLAIN.pixel_nll)),
    soft_counts=differentiated(
        Operation(_soft_counts, _differentiate_soft_counts, PLAIN.soft_counts, differentiable=2)
    ),
    adjusted_nll=differentiated(
        Operation(_adjusted_nll, _differentiate_adjusted_nll, PLAIN.adjusted_nll)
    ),
    lovasz_softmax=lovasz_softmax,
    resized_class_sums_and_lovasz=differentiated(
        Operation(
            _resized_class_sums_and_lovasz,
            _differentiate_resized_class_sums_and_lovasz,
            PLAIN.resized_class_sums_and_lovasz,
            differentiable=2,
        )
    ),
    weighted_mean=_weighted_mean,
)
