"""Per-class sums of the negative log-likelihood, block by block.

The same numbers as the plain path of :func:`mmseg_recall.functional.class_nll_sums`. A block of
the logits is read into the cache once and scored there; the backward computes the softmax again
and writes the gradient once. Nothing of the size of the logits is allocated besides that gradient.

:func:`resized_class_nll_sums` does the same from low-resolution logits: a tile is upsampled where
it is scored, and its gradient is brought down again at once, so that neither the full-resolution
logits nor their gradient ever exist.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from threading import Barrier
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_shapes, compute_dtype, valid_pixels
from .counts import ClassCounts, count_labels

# Elements of the logits in a block: what fits the cache of a core on CPU; elsewhere enough for
# the launches not to matter.
CPU_BLOCK = 2**18
DEVICE_BLOCK = 2**24
# Columns of a tile: narrow, because what upsampling multiplies with grows with it, yet wide enough
# for a matrix product.
CPU_TILE_COLUMNS = 128

Pixels = tuple[int, slice]  # of one image, and which of its pixels
Item = TypeVar('Item')
Result = TypeVar('Result')


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


def refuse_double_backward() -> None:
    """Raise in a backward that is itself to be differentiated (``create_graph=True``)."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused losses can be differentiated once only: use impl='plain', or a loss of "
            'plain torch operations, where you need the gradient of a gradient (create_graph=True)'
        )


def as_rows(logits: Tensor) -> Tensor:
    """(N, C, pixels), a view wherever strides allow; a plain (N, C) is one image of N pixels."""
    return logits.t().unsqueeze(0) if logits.dim() == 2 else logits.flatten(2)


def pixel_rows(image: Tensor | None) -> Tensor | None:
    """The same for a tensor with one number a pixel: (N, pixels)."""
    if image is None:
        return None
    return image.unsqueeze(0) if image.dim() == 1 else image.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    return rows.squeeze(0).t() if like.dim() == 2 else rows.view(like.shape)


def empty(num_elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.empty of one dimension, in huge pages where the system has them.

    A large fresh tensor on CPU costs a page fault every 4 KiB when it is first written, which takes
    longer than the backward that writes it.
    """
    num_bytes = num_elements * dtype.itemsize
    if device.type != 'cpu' or num_bytes < 2**22 or not hasattr(mmap, 'MADV_HUGEPAGE'):
        return torch.empty(num_elements, dtype=dtype, device=device)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages refuses; the memory is good all the same
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)


def empty_like(rows: Tensor) -> Tensor:
    """torch.empty_like, from :func:`empty`."""
    strides = torch.empty_like(rows, device='meta').stride()
    return empty(rows.numel(), rows.dtype, rows.device).as_strided(rows.shape, strides)


def map_row_blocks(work: Callable[[Pixels, Tensor, Tensor], Result], rows: Tensor) -> list[Result]:
    """``work`` on the pixels of (N, C, pixels), block by block; results in the order of the blocks.

    ``work`` gets the image and the pixels of its block, the logits (C, k) in the computing type,
    and a tensor like them to write to.
    """
    num_images, num_classes, num_pixels = rows.shape
    length = max(min(_block_size(rows.device) // num_classes, num_pixels), 1)
    dtype = compute_dtype(rows)
    # Gathered first where it is not ready to read: another type, or pixels that are not adjacent.
    copies = rows.dtype != dtype or rows.stride(2) != 1

    def run(blocks: Iterator[Pixels]) -> Iterator[Result]:
        buffers = torch.empty(1 + copies, num_classes * length, dtype=dtype, device=rows.device)
        for n, pixels in blocks:
            x = rows[n, :, pixels]
            scratch, *copy = (b[: x.numel()].view(x.shape) for b in buffers)
            yield work((n, pixels), copy[0].copy_(x) if copies else x, scratch)

    starts = range(0, num_pixels, length)
    blocks = [(n, slice(s, min(s + length, num_pixels))) for n in range(num_images) for s in starts]
    return map_on_threads(run, blocks, rows.device)


def _block_size(device: torch.device) -> int:
    return CPU_BLOCK if device.type == 'cpu' else DEVICE_BLOCK


def map_on_threads(
    run: Callable[[Iterator[Item]], Iterator[Result]], items: list[Item], device: torch.device
) -> list[Result]:
    """Results of ``run`` over the items, on CPU on as many threads as torch uses.

    A thread takes the next item when it has done the last. It works on an item alone, so that an
    item stays in the cache of one core, and threads meet once, not at every operation.
    """
    results: list[Any] = [None] * len(items)
    shared = iter(list(enumerate(items)))

    def take() -> None:
        current: list[int] = []

        def taken() -> Iterator[Item]:
            for i, item in shared:
                current[:] = [i]
                yield item

        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for result in run(taken()):
                results[current[0]] = result

    num_threads = min(torch.get_num_threads(), len(items)) if device.type == 'cpu' else 1
    with _full_precision():
        if num_threads == 1:
            take()
        else:
            pool = _pool(torch.get_num_threads())
            for done in [pool.submit(take) for _ in range(num_threads)]:
                done.result()
    return results


@lru_cache(maxsize=1)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads in which torch's operations run on that thread alone."""
    all_started = Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    pool = ThreadPoolExecutor(num_threads, 'mmseg_recall')
    for started in [pool.submit(start) for _ in range(num_threads)]:
        started.result()
    # The setting belongs to each thread, but is also what threads started later begin with.
    torch.set_num_threads(num_threads)
    return pool


if hasattr(os, 'register_at_fork'):
    # A forked process has none of the threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Matrix products in full float32: they count, and they interpolate."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


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
    num_rows = min(max(_block_size(device) // (num_classes * num_columns), 1), height)
    rows = _axis(logits.shape[2], height, num_rows, align_corners, dtype, device)
    columns = _axis(logits.shape[3], width, num_columns, align_corners, dtype, device)
    tiles = [_Tile(n, row, column) for n in range(size[0]) for row in rows for column in columns]

    def run(tiles: Iterator[_Tile]) -> Iterator[tuple[_Tile, Result]]:
        buffers = torch.empty(2, num_classes * num_rows * num_columns, dtype=dtype, device=device)
        for tile in tiles:
            shape = num_classes, tile.num_pixels
            x, scratch = (b[: shape[0] * shape[1]].view(shape) for b in buffers)
            yield tile, work(tile, x, scratch)

    return map_on_threads(run, tiles, device)
