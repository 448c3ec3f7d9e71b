"""Lovasz-Softmax on CPU by the C functions: two passes that count, and one that differentiates."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

from ..checks import valid_pixels
from ..lovasz_bins import COARSE, FINE, HARDEST, NOT_RANKED, hardest_of_all
from ..ranks import num_ranks, sum_over_ranks
from . import cpu_library
from .cpu_blocks import At, in_huge_pages, map_row_blocks
from .operation import Operation, differentiated
from .plain import PLAIN
from .rows import as_rows, from_rows, pixel_rows

Slopes = tuple[Tensor, ...]
"""(the first fine bin of each coarse one, as of a Layout; (C,) int32, the bits of an error below
which all slopes are 0; (C,) int32, the row of a class whose hardest pixels are ranked, or -1;
(rows, HARDEST) int32, the bits of their errors, ascending; (2, rows * HARDEST + bins + 1) dL/dp of
the background and of the foreground, with those errors and in each bin)."""
Count = Callable[[Tensor, Tensor], int]
"""(logits (n, C, k), labels (n, k)) -> how many labels mean nothing; it counts the errors."""


def score_blocks(
    on_blocks: Callable[[Count], list[int]],
    num_classes: int,
    target: Tensor,
    ignore_index: int | None,
    sync: bool,
) -> tuple[Tensor, Slopes]:
    """The loss of what ``on_blocks`` gives to a function that counts it, twice."""

    def table(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device='cpu')

    def count(size: int, heaps: Tensor, *bins: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        of_thread: dict[int, tuple[Tensor, Tensor]] = {}

        def count_block(x: Tensor, labels: Tensor) -> int:
            if get_ident() not in of_thread:
                of_thread[get_ident()] = heaps.clone(), table(2, size, dtype=torch.int32)
            heap, mine = of_thread[get_ident()]
            rest = *bins, heap, size, mine
            return cpu_library.run('lovasz_forward', x, labels, ignore_index, *rest)

        if any(on_blocks(count_block)):
            valid_pixels(target, num_classes, ignore_index)  # says which
        parts = [part.long() for _, part in of_thread.values()]
        counts, *others = parts or [table(2, size, dtype=torch.int64)]
        for part in others:
            counts += part
        counts, _ = sum_over_ranks(counts, sync)
        return counts, [heap for heap, _ in of_thread.values()]

    heaps = table(0, HARDEST, dtype=torch.int32)
    coarse, _ = count(num_classes * COARSE, heaps, None, None, None)
    first = table(num_classes, COARSE, dtype=torch.int32)
    pixels = table(num_classes, dtype=torch.int64)
    limit, lowest = table(2, num_classes, dtype=torch.int32)
    num_bins = cpu_library.run_on_tables(
        'lovasz_lay_bins', num_classes, FINE, coarse, first, pixels, limit, lowest
    )
    ranked = (lowest < NOT_RANKED).nonzero().squeeze(1)
    row = torch.full_like(lowest, -1)
    row[ranked] = torch.arange(len(ranked), dtype=torch.int32, device='cpu')
    heaps = (2 * lowest[ranked] - 1).unsqueeze(1).repeat(1, HARDEST)

    fine, of_threads = count(num_bins + 1, heaps, first, limit, row)
    value = table(dtype=torch.float32)
    slopes = table(2, heaps.numel() + num_bins + 1, dtype=torch.float32)
    bins = num_bins, coarse, fine, first, pixels, value, slopes[:, heaps.numel() :]
    cpu_library.run_on_tables('lovasz_score_bins', num_classes, *bins, slopes.stride(0), lowest)
    bits = torch.empty_like(heaps)
    if len(ranked):
        keys = torch.cat(of_threads or [heaps], 1)
        keys.masked_fill_(keys < 2 * lowest[ranked].long().unsqueeze(1), NOT_RANKED)
        keys, present = hardest_of_all(keys, sync).contiguous(), int((pixels > 0).sum())
        rest = keys, pixels[ranked], bits, slopes, slopes.stride(0)
        cpu_library.run_on_tables('lovasz_rank', len(ranked), present, *rest)
    return value, (first, limit, row, bits, slopes)


def differentiate_lovasz(
    x: Tensor,
    labels: Tensor,
    ignore_index: int | None,
    slopes: Slopes,
    scale: Tensor,
    out: Tensor,
) -> None:
    """Write the gradient of a block, x (n, C, k) and labels (n, k), to ``out``, which may be x."""
    *bins, bits, of_bins = slopes
    rest: Any = *bins, bits, len(bits), of_bins, of_bins.stride(0), scale
    rest = *rest, out, out.stride(0), out.stride(1)
    cpu_library.run('lovasz_backward', x, labels, ignore_index, *rest)


def _score(
    logits: Tensor, target: Tensor, ignore_index: int | None, sync: bool
) -> tuple[tuple[Tensor], Slopes]:
    rows, labels = as_rows(logits), pixel_rows(target)

    def on_blocks(count: Count) -> list[int]:
        return map_row_blocks(lambda at, x, _: count(x, labels[at]), rows)

    value, slopes = score_blocks(on_blocks, logits.shape[1], target, ignore_index, sync)
    return (value,), slopes


def _differentiate(
    grads: tuple[Tensor],
    saved: list[Tensor],
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    sync: bool,
) -> Tensor:
    scale = grads[0] * num_ranks(sync)
    rows, labels = as_rows(logits), pixel_rows(target)
    grad = in_huge_pages(torch.empty_like(rows))

    def differentiate(at: At, x: Tensor, out: Tensor) -> None:
        differentiate_lovasz(x, labels[at], ignore_index, tuple(saved), scale, out)

    map_row_blocks(differentiate, rows, grad)
    return from_rows(grad, logits)


lovasz_softmax = differentiated(Operation(_score, _differentiate, PLAIN.lovasz_softmax))
