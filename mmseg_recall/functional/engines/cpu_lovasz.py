"""Lovasz-Softmax on CPU by the C functions: two passes that count, and one that differentiates."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import Tensor

from ..checks import valid_pixels
from ..lovasz_bins import COARSE, FINE, USED
from ..ranks import sum_over_ranks
from . import cpu_library
from .cpu_blocks import At, in_huge_pages, map_row_blocks
from .operation import Operation, differentiated
from .plain import PLAIN
from .rows import as_rows, from_rows, pixel_rows

Bins = tuple[Tensor, Tensor]
"""(the first fine bin of each coarse one, as of a Layout; (C,) int32, the bits of an error below
which all slopes are 0)."""
Slopes = tuple[Tensor, Tensor, Tensor]
"""The bins, and (2, bins + 1) dL/dp of the background and of the foreground in each."""
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

    def count(size: int, *bins: Tensor | None) -> Tensor:
        of_thread: dict[int, Tensor] = {}

        def count_block(x: Tensor, labels: Tensor) -> int:
            if get_ident() not in of_thread:
                of_thread[get_ident()] = torch.zeros(2, size, dtype=torch.int32, device='cpu')
            rest = *bins, *of_thread[get_ident()]
            return cpu_library.run('lovasz_forward', x, labels, ignore_index, *rest)

        if any(on_blocks(count_block)):
            valid_pixels(target, num_classes, ignore_index)  # says which
        counts = torch.zeros(2, size, dtype=torch.int64, device='cpu')
        for part in of_thread.values():
            counts += part
        return counts

    def table(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device='cpu')

    counts, _ = sum_over_ranks(count(num_classes * COARSE, None, None), sync)
    first = table(num_classes, COARSE, dtype=torch.int32)
    pixels, limit = table(num_classes, dtype=torch.int64), table(num_classes, dtype=torch.int32)
    num_bins = cpu_library.run_on_tables(
        'lovasz_lay_bins', num_classes, FINE, counts, first, pixels, limit
    )
    not_a_number = counts.view(2, num_classes, COARSE)[..., USED].any()

    counts, world_size = sum_over_ranks(count(num_bins + 1, first, limit), sync)
    value, slopes = table(dtype=torch.float64), table(2, num_bins + 1, dtype=torch.float32)
    cpu_library.run_on_tables(
        'lovasz_score_bins', num_classes, num_bins, counts, first, pixels, value, slopes
    )
    value.masked_fill_(not_a_number, float('nan'))
    return value.float(), (first, limit, slopes.mul_(world_size))


def differentiate_lovasz(
    x: Tensor, labels: Tensor, ignore_index: int | None, slopes: Slopes, out: Tensor
) -> None:
    """Write the gradient of a block, x (n, C, k) and labels (n, k), to ``out``, which may be x."""
    first, limit, (background, foreground) = slopes
    rest: Any = first, limit, background, foreground, out, out.stride(0), out.stride(1)
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
    slopes = saved[0], saved[1], saved[2] * grads[0]
    rows, labels = as_rows(logits), pixel_rows(target)
    grad = in_huge_pages(torch.empty_like(rows))

    def differentiate(at: At, x: Tensor, out: Tensor) -> None:
        differentiate_lovasz(x, labels[at], ignore_index, slopes, out)

    map_row_blocks(differentiate, rows, grad)
    return from_rows(grad, logits)


lovasz_softmax = differentiated(Operation(_score, _differentiate, PLAIN.lovasz_softmax))
