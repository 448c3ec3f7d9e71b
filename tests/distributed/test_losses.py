"""Across ranks: the averaged gradient is that of the whole batch on one process.

A loss that is added to the package takes part by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmseg_recall.losses import ClassWeightedLoss, available_losses
from mmseg_recall.losses.base import SoftCountsLoss
from mmseg_recall.stack import find_stack

from .ranks import WORLD_SIZES, Collectives, Ranks

CLASSES = 4
# Images per rank. Class 3 is on the first image only, and the last image has no valid pixel.
SPLITS = {
    1: {'all on one': [8]},
    2: {'even': [4, 4], 'uneven': [1, 7], 'a rank all ignored': [7, 1]},
    4: {'even': [2, 2, 2, 2], 'uneven': [1, 4, 1, 2], 'a rank all ignored': [3, 2, 2, 1]},
}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
STEPS = 2


class FusedHead(nn.Module):
    """A head with a fused tail, called like a loss, with every other row and column of logits."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        from mmseg.registry import MODELS

        cfg = dict(type='FusedFCNHead', in_channels=4, channels=4, num_convs=0, concat_input=False)
        self.head = MODELS.build(dict(cfg, num_classes=CLASSES))
        self.head.loss_decode = loss
        self.sync_stats = loss.sync_stats

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        samples = [SegDataSample(gt_sem_seg=PixelData(data=y[None])) for y in target]
        losses = self.head.loss_by_feat(logits[..., ::2, ::2].contiguous(), samples)
        return losses[self.head.loss_decode.loss_name]


def construct(name: str, fused: bool = False, **options: Any) -> nn.Module:
    cls = available_losses()[name]
    if 'class_counts' in signature(cls).parameters:
        options['class_counts'] = [4, 3, 2, 1]
    loss = cls(**options)
    return FusedHead(loss) if fused else loss


def cases() -> dict[str, Callable[[], nn.Module]]:
    """Every loss with its defaults, and with what changes how ranks work together."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name, cls in available_losses().items():
        found[name] = partial(construct, name)
        if hasattr(construct(name), 'sync_stats'):
            found[f'{name}(sync_stats=False)'] = partial(construct, name, sync_stats=False)
        if issubclass(cls, ClassWeightedLoss):
            found[f"{name}(normalization='weights')"] = partial(
                construct, name, normalization='weights'
            )
            if find_stack():
                found[f'FusedFCNHead({name})'] = partial(construct, name, fused=True)
        if issubclass(cls, SoftCountsLoss):
            for average in ('image', 'class'):
                found[f'{name}({average=})'] = partial(construct, name, average=average)
    for fused in (False, True)[: 1 + bool(find_stack())]:
        name = 'FusedFCNHead(RecallLoss(momentum))' if fused else 'RecallLoss(momentum)'
        found[name] = partial(construct, 'RecallLoss', fused=fused, momentum=0.5)
    return found


CASES = cases()
SYNCED = {name for name, case in CASES.items() if getattr(case(), 'sync_stats', False)}


def batches(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """One a step; no pixel of the last is valid on any rank."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(STEPS + 1):
        logits = torch.randn(8, CLASSES, 6, 10, generator=generator, dtype=dtype)
        target = torch.randint(0, 3, (8, 6, 10), generator=generator)
        target[0, 0] = 3
        target[7] = 255
        found.append((logits, target))
    found[-1][1].fill_(255)
    return found


def train(loss: nn.Module, sizes: list[int], rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """Values and gradients of each step on one part of the batches, and the state at the end."""
    values, gradients = [], []
    with Collectives() as collectives:
        for logits, target in batches(dtype):
            mine = logits.split(sizes)[rank].clone().requires_grad_()
            value = loss(mine, target.split(sizes)[rank])
            value.backward()
            values.append(value.item())
            gradients.append(mine.grad)
    parameters = dict(loss.named_parameters())
    state = {name: kept for name, kept in loss.state_dict().items() if name not in parameters}
    logged = getattr(loss, 'last_weight', None)
    return dict(
        values=values, gradients=gradients, state=state, logged=logged, sizes=collectives.sizes
    )


def on_rank(world_size: int) -> dict[tuple, dict[str, Any]]:
    rank = torch.distributed.get_rank()
    return {
        (split, case, dtype): train(loss(), sizes, rank, dtype)
        for split, sizes in SPLITS[world_size].items()
        for dtype in TOLERANCE
        for case, loss in CASES.items()
    }


@pytest.fixture(scope='module', params=WORLD_SIZES, ids='{} ranks'.format)
def on_ranks(request: pytest.FixtureRequest, ranks: Ranks) -> list[dict]:
    return ranks.run(request.param, on_rank, request.param)


def results(
    on_ranks: list[dict], synced: bool
) -> list[tuple[tuple, list[int], list[dict[str, Any]]]]:
    keys = [key for key in on_ranks[0] if (key[1] in SYNCED) == synced]
    sizes = SPLITS[len(on_ranks)]
    return [(key, sizes[key[0]], [rank[key] for rank in on_ranks]) for key in keys]


def test_mean_over_ranks_is_the_whole_batch(on_ranks: list[dict]) -> None:
    compared = results(on_ranks, synced=True)
    assert {case for (_, case, _), _, _ in compared} == SYNCED
    for key, _, parts in compared:
        _, case, dtype = key
        whole = train(CASES[case](), [8], 0, dtype)
        for step in range(STEPS + 1):
            mean = sum(part['values'][step] for part in parts) / len(parts)
            assert mean == pytest.approx(whole['values'][step], rel=TOLERANCE[dtype]), key
            # DDP averages the gradients of the ranks.
            gradient = torch.cat([part['gradients'][step] for part in parts]) / len(parts)
            difference = (gradient - whole['gradients'][step]).abs().max()
            assert difference <= TOLERANCE[dtype] * whole['gradients'][step].abs().max(), key
        for part in parts:
            torch.testing.assert_close(part['state'], whole['state'], rtol=0, atol=0)
            torch.testing.assert_close(
                part['logged'], whole['logged'], rtol=0, atol=0, equal_nan=True
            )


def test_nothing_valid_on_any_rank_is_zero(on_ranks: list[dict]) -> None:
    for rank in on_ranks:
        for key, part in rank.items():
            assert part['values'][-1] == 0, key
            assert not part['gradients'][-1].any(), key


def sums_of_a_step(case: str, dtype: torch.dtype) -> tuple[int, int]:
    """(how many, of how many numbers at most)."""
    if case.startswith('OHEMLoss'):
        return {torch.float32: 3, torch.float64: 6}[dtype], 2048
    if case.startswith('LovaszSoftmaxLoss'):
        # The sizes of the ranks; of so few pixels, the errors and labels of all.
        return 3, 8 * 60 * (CLASSES + 1)
    return 1, 3 * CLASSES


def test_few_numbers_are_summed_over_ranks(on_ranks: list[dict]) -> None:
    for key, _, parts in results(on_ranks, synced=True):
        number, largest = sums_of_a_step(*key[1:])
        for part in parts:
            assert len(part['sizes']) == (number * (STEPS + 1) if len(on_ranks) > 1 else 0), key
            assert all(size <= largest for size in part['sizes']), key


def test_without_sync_each_rank_is_on_its_own(on_ranks: list[dict]) -> None:
    compared = results(on_ranks, synced=False)
    names = {case for (_, case, _), _, _ in compared}
    assert names >= {
        'OHEMLoss(sync_stats=False)',
        'LovaszSoftmaxLoss(sync_stats=False)',
        'RecallLoss(sync_stats=False)',
    }
    for (_, case, dtype), sizes, parts in compared:
        for rank, part in enumerate(parts):
            assert part['sizes'] == []
            alone = train(CASES[case](), sizes, rank, dtype)
            torch.testing.assert_close(part, alone, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_the_running_recall_is_the_same_on_all_ranks(on_ranks: list[dict]) -> None:
    whole = train(CASES['RecallLoss(momentum)'](), [8], 0, torch.float64)['state']
    assert whole['running_recall'].isfinite().all()
    for split in SPLITS[len(on_ranks)]:
        for rank in on_ranks:
            state = rank[split, 'RecallLoss(momentum)', torch.float64]['state']
            assert torch.equal(state['running_recall'], whole['running_recall'])
