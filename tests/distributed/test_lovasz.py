"""Lovasz-Softmax across ranks is that of the whole batch, sorted and counted alike."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mmseg_recall.functional import lovasz, lovasz_softmax
from mmseg_recall.functional.lovasz_bins import FINE

from .ranks import WORLD_SIZES, Collectives, Ranks

# Images per rank; the last image has no valid pixel.
SPLITS = {1: [[6]], 2: [[1, 5], [5, 1], [6, 0]], 4: [[2, 1, 2, 1], [3, 0, 2, 1]]}
CASES = [
    (few, dict(impl=impl, exact=exact))
    for few in (0, lovasz.FEW)
    for impl in ('plain', 'fused')
    for exact in (False, True)
]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 7, 20, 30, generator=generator)
    target = torch.randint(6, (6, 20, 30), generator=generator)
    target[1, :2] = 6
    target[5] = 255
    return logits, target


def results(sizes: list[int], rank: int) -> list[tuple[Tensor, Tensor, list[int]]]:
    """(value, gradient, numbers that each collective had) of the cases."""
    logits, target = (values.split(sizes)[rank] for values in batch())
    found = []
    for few, options in CASES:
        lovasz.FEW = few
        mine = logits.clone().requires_grad_()
        with Collectives() as collectives:
            value = lovasz_softmax(mine, target, **options)
            value.backward()
        found.append((value.detach(), mine.grad, collectives.sizes))
    return found


def on_rank(splits: list[list[int]]) -> list[list[tuple[Tensor, Tensor, list[int]]]]:
    return [results(sizes, dist.get_rank()) for sizes in splits]


@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_is_that_of_the_whole_batch(world_size: int, ranks: Ranks) -> None:
    whole = results([6], 0)
    of_ranks = ranks.run(world_size, on_rank, SPLITS[world_size])
    for split in range(len(SPLITS[world_size])):
        parts = [rank[split] for rank in of_ranks]
        for case, (value, gradient, _) in enumerate(whole):
            for part in parts:
                torch.testing.assert_close(part[case][0], value, rtol=1e-6, atol=0)
            got = torch.cat([part[case][1] for part in parts]) / world_size
            difference = (got - gradient).abs().max()
            assert difference <= 1e-6 * gradient.abs().max(), CASES[case]


def test_counts_alone_are_summed_over_ranks(ranks: Ranks) -> None:
    """As many numbers for any number of pixels: the sizes, the coarse bins, the fine ones, how many
    are ranked, and their keys."""
    for rank in ranks.run(2, on_rank, SPLITS[2]):
        for split in rank:
            for (few, options), (_, _, sizes) in zip(CASES, split, strict=True):
                counted = few == 0 and not options['exact']
                assert (len(sizes), max(sizes) > FINE) == (5 if counted else 3, counted)
