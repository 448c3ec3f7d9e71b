"""Lovasz-Softmax on CPU by the C functions: two passes that count, and one that differentiates."""

from __future__ import annotations

from threading import get_ident

import torch
from torch import Tensor

from ..checks import valid_pixels
from ..lovasz_bins import COARSE, Layout, lay_bins, score_bins
from ..ranks import sum_over_ranks
from . import cpu_library
from .cpu_blocks import At, in_huge_pages, map_row_blocks
from .operation import Operation, differentiated
from .plain import PLAIN
from .rows import as_rows, from_rows, pixel_rows


def _score(
    logits: Tensor, target: Tensor, ignore_index: int | None, sync: bool
) -> tuple[tuple[Tensor], tuple[Tensor, Tensor]]:
    counts = _count(logits, target, ignore_index, None)
    layout = lay_bins(sum_over_ranks(counts, sync)[0])
    counts, world_size = sum_over_ranks(_count(logits, target, ignore_index, layout), sync)
    value, slopes = score_bins(counts, layout)
    return (value.float(),), (layout.first, slopes * world_size)


def _count(
    logits: Tensor, target: Tensor, ignore_index: int | None, layout: Layout | None
) -> Tensor:
    """(2, C, COARSE), of background and foreground; with a layout (2, bins + 1)."""
    labels, num_classes = pixel_rows(target), logits.shape[1]
    first = None if layout is None else layout.first
    shape = (2, num_classes, COARSE) if layout is None else (2, len(layout.middle) + 1)
    of_thread: dict[int, Tensor] = {}

    def count(at: At, x: Tensor, _: Tensor) -> int:
        if get_ident() not in of_thread:
            of_thread[get_ident()] = torch.zeros(shape, dtype=torch.int32, device='cpu')
        rest = first, *of_thread[get_ident()]
        return cpu_library.run('lovasz_forward', x, labels[at], ignore_index, *rest)

    if any(map_row_blocks(count, as_rows(logits), by_library=True)):
        valid_pixels(target, num_classes, ignore_index)  # says which
    counts = torch.zeros(shape, dtype=torch.int64, device='cpu')
    for part in of_thread.values():
        counts += part
    return counts


def _differentiate(
    grads: tuple[Tensor],
    saved: list[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    sync: bool,
) -> Tensor:
    first, slopes = saved[0], saved[1] * grads[0]
    rows, labels = as_rows(logits), pixel_rows(target)
    grad = in_huge_pages(torch.empty_like(rows))

    def differentiate(at: At, x: Tensor, out: Tensor) -> None:
        rest = first, *slopes, out, out.stride(0), out.stride(1)
        cpu_library.run('lovasz_backward', x, labels[at], ignore_index, *rest)

    map_row_blocks(differentiate, rows, grad, by_library=True)
    return from_rows(grad, logits)


lovasz_softmax = differentiated(Operation(_score, _differentiate, PLAIN.lovasz_softmax))
