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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_shapes, compute_dtype, valid_pixels
from .counts import ClassCounts, count_labels

# Elements of the logits in a block: what fits the cache of each core on CPU; elsewhere enough for
# the launches not to matter.
CPU_BLOCK = 2**18  # a thread
DEVICE_BLOCK = 2**24
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
        totals = _Totals(logits)
        with _exact_arithmetic(logits.device):
            for at, x, scratch in row_blocks(as_rows(logits)):
                block_labels = torch.where(valid_rows[at], labels[at], totals.num_classes)
                totals.add(x, block_labels, scratch, None if weight is None else weight[at])
        ctx.save_for_backward(logits, target, valid, pixel_weight)
        sums, counts = totals.results()
        ctx.mark_non_differentiable(*counts)
        return sums, *counts

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target, valid, pixel_weight = ctx.saved_tensors
        labels, valid_rows, weight = (pixel_rows(t) for t in (target, valid, pixel_weight))
        rows = as_rows(logits)
        grad = empty_like(rows)
        grad_of_label = F.pad(grad_sums, (0, 1))
        with _exact_arithmetic(logits.device):
            for at, x, scratch in row_blocks(rows):
                block_labels = torch.where(valid_rows[at], labels[at], len(x))
                factor = grad_of_label.index_select(0, block_labels)
                if weight is not None:
                    factor = factor * weight[at]
                residual = _softmax_minus_one_hot(x, block_labels, scratch)
                torch.mul(residual, factor, out=grad[at[0], :, at[1]])
        return from_rows(grad, logits), None, None, None


class _ResizedClassNllSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, valid: Tensor, align_corners: bool
    ) -> tuple[Tensor, ...]:
        totals = _Totals(logits)
        with _exact_arithmetic(logits.device):
            for tile in _tiles(logits, target.shape, align_corners):
                labels = torch.where(valid[tile.at], target[tile.at], totals.num_classes)
                totals.add(tile.upsampled(logits), labels.flatten(), tile.scratch)
        ctx.save_for_backward(logits, target, valid)
        ctx.align_corners = align_corners
        sums, counts = totals.results()
        ctx.mark_non_differentiable(*counts)
        return sums, *counts

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        logits, target, valid = ctx.saved_tensors
        grad = torch.zeros(logits.shape, dtype=compute_dtype(logits), device=logits.device)
        grad_of_label = F.pad(grad_sums, (0, 1))
        with _exact_arithmetic(logits.device):
            for tile in _tiles(logits, target.shape, ctx.align_corners):
                labels = torch.where(valid[tile.at], target[tile.at], logits.shape[1]).flatten()
                residual = _softmax_minus_one_hot(tile.upsampled(logits), labels, tile.scratch)
                tile.add_downsampled(residual.mul_(grad_of_label.index_select(0, labels)), grad)
        return grad.to(logits.dtype), None, None, None


class _Totals:
    """Running totals over blocks of pixels; class C collects the pixels that take no part."""

    def __init__(self, logits: Tensor) -> None:
        self.num_classes = logits.shape[1]
        self.dtype = compute_dtype(logits)
        bins, device = self.num_classes + 1, logits.device
        # Missed and hit pixels of each class are kept apart: one pass counts both.
        self.sums = torch.zeros(bins, 2, dtype=torch.float64, device=device)
        self.pixels = torch.zeros(bins, 2, dtype=torch.int64, device=device)
        self.predicted = torch.zeros(bins, dtype=torch.int64, device=device)

    def add(self, x: Tensor, labels: Tensor, scratch: Tensor, weight: Tensor | None = None) -> None:
        """Count and score a block: x (C, k), labels (k,) with C for pixels that take no part."""
        nll = _at_label(torch.log_softmax(x, 0, out=scratch), labels).neg_()
        if weight is not None:
            nll = nll * weight
        bins = self._count_predictions(x, labels, scratch).add_(labels, alpha=2)
        self.pixels.view(-1).scatter_add_(0, bins, torch.ones_like(bins))
        self.sums.view(-1).index_add_(0, bins, nll.double())

    def _count_predictions(self, x: Tensor, labels: Tensor, scratch: Tensor) -> Tensor:
        """Add up the predictions of the pixels that take part; return 1 where they are right."""
        valid = labels < self.num_classes
        if x.device.type == 'cpu':
            # torch's argmax costs more than the rest of the block. Where no two classes share the
            # top, those that equal it are the predictions; a NaN equals nothing.
            top = torch.amax(x, 0)
            is_top = torch.eq(x, top, out=scratch)
            predicted = torch.mv(is_top, valid.to(x.dtype))
            if predicted.sum() == valid.sum() and not top.sum().isnan():
                self.predicted[:-1] += predicted.long()
                return _at_label(is_top, labels).long()
        prediction = x.max(0).indices
        bins = torch.where(valid, prediction, self.num_classes)
        self.predicted += count_labels(bins, self.num_classes + 1)
        return (prediction == labels).long()

    def results(self) -> tuple[Tensor, ClassCounts]:
        pixels = self.pixels[:-1]
        counts = ClassCounts(pixels.sum(1), pixels[:, 1].clone(), self.predicted[:-1])
        return self.sums[:-1].sum(1).to(self.dtype), counts


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


def _block_size(device: torch.device) -> int:
    return CPU_BLOCK * torch.get_num_threads() if device.type == 'cpu' else DEVICE_BLOCK


def row_blocks(rows: Tensor) -> Iterator[tuple[tuple[int, slice], Tensor, Tensor]]:
    """Blocks of the pixels of (N, C, pixels): index, (C, k) in the computing type, scratch."""
    num_images, num_classes, num_pixels = rows.shape
    length = max(_block_size(rows.device) // num_classes, 1)
    dtype = compute_dtype(rows)
    # Gathered first where it is not ready to read: another type, or pixels that are not adjacent.
    copies = rows.dtype != dtype or rows.stride(2) != 1
    buffers = torch.empty(
        1 + copies, num_classes * min(length, num_pixels), dtype=dtype, device=rows.device
    )
    for n in range(num_images):
        for start in range(0, num_pixels, length):
            pixels = slice(start, min(start + length, num_pixels))
            x = rows[n, :, pixels]
            scratch, *copy = (b[: x.numel()].view(x.shape) for b in buffers)
            yield (n, pixels), copy[0].copy_(x) if copies else x, scratch


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
    buffer: Tensor
    scratch: Tensor

    @property
    def at(self) -> tuple[int, slice, slice]:
        return self.n, self.rows.output, self.columns.output

    def upsampled(self, logits: Tensor) -> Tensor:
        """Full-resolution logits of the tile, (C, pixels)."""
        low = logits[self.n, :, self.rows.input, self.columns.input].to(self.buffer.dtype)
        tall = torch.matmul(self.rows.weight, low).flatten(0, 1)
        torch.mm(tall, self.columns.weight.t(), out=self.buffer.view(len(tall), -1))
        return self.buffer

    def add_downsampled(self, grad: Tensor, total: Tensor) -> None:
        """Add what the gradient of the tile, (C, pixels), gives to the low resolution."""
        num_rows, num_columns = len(self.rows.weight), len(self.columns.weight)
        narrow = torch.mm(grad.view(-1, num_columns), self.columns.weight)
        low = torch.matmul(self.rows.weight.t(), narrow.view(len(grad), num_rows, -1))
        total[self.n, :, self.rows.input, self.columns.input] += low


def _tiles(logits: Tensor, size: torch.Size, align_corners: bool) -> Iterator[_Tile]:
    """Tiles of the images of a target of size (N, H, W), always in the same order."""
    num_classes, (height, width) = logits.shape[1], size[1:]
    dtype, device = compute_dtype(logits), logits.device
    num_columns = min(CPU_TILE_COLUMNS, width) if device.type == 'cpu' else width
    num_rows = min(max(_block_size(device) // (num_classes * num_columns), 1), height)
    rows = _axis(logits.shape[2], height, num_rows, align_corners, dtype, device)
    columns = _axis(logits.shape[3], width, num_columns, align_corners, dtype, device)
    buffers = torch.empty(2, num_classes * num_rows * num_columns, dtype=dtype, device=device)
    for n in range(len(logits)):
        for row in rows:
            for column in columns:
                shape = num_classes, len(row.weight) * len(column.weight)
                buffer, scratch = (b[: shape[0] * shape[1]].view(shape) for b in buffers)
                yield _Tile(n, row, column, buffer, scratch)


@contextmanager
def _exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No autocast, and matrix products in full float32: they count, and they interpolate."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
