"""When the weights come, what they are, and that a resumed run and other losses have them, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmseg_recall.classification.deferred_reweighting import (
    DeferredReweightingHook,
    count_labels,
)
from tests.distributed.ranks import Ranks

COUNTS = [8, 3, 1]
BETA = 0.9


class Images(Dataset):
    """What the hook asks of an mmpretrain dataset, without files; class 3 has no sample."""

    def __init__(self) -> None:
        self.metainfo = dict(classes=('a', 'b', 'c', 'd'))

    def get_gt_labels(self) -> np.ndarray:
        return np.repeat(np.arange(len(COUNTS)), COUNTS)

    def __len__(self) -> int:
        return sum(COUNTS)

    def __getitem__(self, index: int) -> dict:
        label = int(self.get_gt_labels()[index])
        return dict(inputs=torch.eye(12)[index], data_samples=DataSample().set_gt_label(label))


class Recorder(nn.Module):
    """Cross-entropy that keeps the sample weights of each call, with their labels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        self.seen.append((target, weight))
        return F.cross_entropy(logits, target)


class Classifier(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.head = LinearClsHead(4, 12, loss=Recorder())

    def forward(self, inputs: list[Tensor], data_samples: list[DataSample], mode: str) -> dict:
        return self.head.loss((torch.stack(inputs),), data_samples)


def train(work_dir: Path, by_epoch: bool, end: int, resume: bool = False) -> list:
    """Four samples an iteration, three iterations an epoch, weights from 2 on."""
    unit = dict(by_epoch=True, max_epochs=end) if by_epoch else dict(by_epoch=False, max_iters=end)
    model = Classifier()
    Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(Images(), batch_size=4, collate_fn=collate, shuffle=True),
        train_cfg=unit,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch)),
        custom_hooks=[DeferredReweightingHook(begin=2, beta=BETA)],
        resume=resume,
        experiment_name=f'{work_dir.name}_{end}',
        default_scope='mmpretrain',
        log_level='ERROR',
    ).train()
    return model.head.loss_module.seen


def collate(samples: list[dict]) -> dict:
    return {key: [s[key] for s in samples] for key in samples[0]}


def expected_weight(target: Tensor) -> Tensor:
    """Normalised by hand: the weights of the batch have mean 1."""
    per_class = [(1 - BETA) / (1 - BETA**n) for n in COUNTS]
    weight = [per_class[y] for y in target.tolist()]
    return torch.tensor([w * len(weight) / sum(weight) for w in weight])


def assert_weights(seen: list, first: int) -> None:
    assert [weight is not None for _, weight in seen] == [i >= first for i in range(len(seen))]
    for target, weight in seen[first:]:
        torch.testing.assert_close(weight, expected_weight(target))


@pytest.mark.parametrize(('by_epoch', 'first'), [(True, 6), (False, 2)])
def test_weights_begin_with_their_epoch_or_iteration(tmp_path, by_epoch, first) -> None:
    seen = train(tmp_path, by_epoch, end=4)
    assert len(seen) == (12 if by_epoch else 4)
    assert_weights(seen, first)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_resumed_run_goes_on_with_the_weights(tmp_path, by_epoch) -> None:
    before = train(tmp_path, by_epoch, end=2)
    assert_weights(before, len(before))
    after = train(tmp_path, by_epoch, end=3, resume=True)
    assert len(after) == (3 if by_epoch else 1)
    assert_weights(after, 0)


def due_hook(**options: Any) -> DeferredReweightingHook:
    hook = DeferredReweightingHook(begin=0, beta=BETA, **options)
    hook.before_train(_Runner())
    hook.is_due = True
    return hook


class _Runner:
    def __init__(self) -> None:
        self.model = Classifier()
        self.train_loop = type('Loop', (), dict(dataloader=DataLoader(Images())))


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='LDAMLoss', class_counts=[*COUNTS, 0], scale=2.0),
        dict(type='SoftmaxFocalLoss', gamma=1.0),
        dict(type='RecallLoss', schedule=dict(kind='step', start=0.0, end=1.0, begin=9)),
        dict(type='CrossEntropyLoss'),
    ],
    ids=lambda loss: loss['type'],
)
def test_every_loss_is_then_a_weighted_mean(loss: dict) -> None:
    torch.manual_seed(0)
    head = LinearClsHead(4, 12, loss=loss)
    target = torch.tensor([0, 2, 1, 0, 0])
    feats, data_samples = torch.randn(5, 12), [DataSample().set_gt_label(y) for y in target]
    plain = head.loss((feats,), data_samples)['loss']

    hook = due_hook()
    handle = head.loss_module.register_forward_pre_hook(hook._add_weight, with_kwargs=True)
    value = head.loss((feats,), data_samples)['loss']
    handle.remove()
    assert torch.equal(head.loss((feats,), data_samples)['loss'], plain)

    each = torch.stack(
        [head.loss((feats[i : i + 1],), data_samples[i : i + 1])['loss'] for i in range(5)]
    )
    torch.testing.assert_close(plain, each.mean())
    torch.testing.assert_close(value, (expected_weight(target) * each).mean())
    assert value != plain


def test_focal_drw_is_the_focal_loss_of_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    head = LinearClsHead(4, 12, loss=dict(type='WeightedFocalLoss', gamma=1.5))
    target = torch.tensor([0, 2, 1, 0, 0])
    feats, data_samples = torch.randn(5, 12), [DataSample().set_gt_label(y) for y in target]
    plain = head.loss((feats,), data_samples)['loss']
    hook = due_hook(normalization='classes')
    head.loss_module.register_forward_pre_hook(hook._add_weight, with_kwargs=True)
    value = head.loss((feats,), data_samples)['loss']

    logits = head((feats,)).detach().double()
    log_p = (logits - logits.exp().sum(1, keepdim=True).log())[torch.arange(5), target]
    per_class = torch.tensor([(1 - BETA) / (1 - BETA**n) for n in COUNTS] + [0.0]).double()
    weight = (4 * per_class / per_class.sum())[target]
    p = log_p.exp()
    expected = ((1 - p**weight) ** 1.5 * -weight * log_p).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert plain.item() == pytest.approx(((1 - p) ** 1.5 * -log_p).mean().item(), rel=1e-6)
    # Outside, as in SoftmaxFocalLoss, the same weights make another loss.
    outside = (weight * (1 - p) ** 1.5 * -log_p).mean()
    assert abs(expected - outside) > 0.03 * outside


def test_counts_come_from_the_training_set_or_are_given() -> None:
    assert count_labels(Images()).tolist() == [8, 3, 1, 0]
    assert torch.equal(due_hook().weight, due_hook(class_counts=[8, 3, 1, 0]).weight)
    assert due_hook().weight[3] == 0


def test_what_cannot_be_counted_or_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match='list does not tell its labels'):
        count_labels([1, 2])
    hook = due_hook(class_counts=[8, 3, 1])
    with pytest.raises(ValueError, match='3 classes, the logits have 4'):
        hook.sample_weight(torch.zeros(2, 4), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match='Mixup'):
        hook.sample_weight(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match='begin'):
        DeferredReweightingHook(begin=-1)
    with pytest.raises(ValueError, match=r"normalization must be one of .*'sum'"):
        DeferredReweightingHook(begin=0, normalization='sum')
    with pytest.raises(ValueError, match='beta'):
        DeferredReweightingHook(begin=0, beta=1.0)


def part_of_the_batch(bounds: list[int], target: Tensor) -> Tensor:
    rank = torch.distributed.get_rank()
    mine = target[bounds[rank] : bounds[rank + 1]]
    return due_hook().sample_weight(torch.zeros(len(mine), 4), mine)


@pytest.mark.slow
def test_across_ranks_the_weights_are_those_of_the_whole_batch(tmp_path) -> None:
    target = torch.tensor([0, 2, 1, 0, 0, 1])
    ranks = Ranks(tmp_path)
    try:
        for bounds in ([0, 3, 6], [0, 1, 6]):
            parts = ranks.run(2, part_of_the_batch, bounds, target)
            torch.testing.assert_close(torch.cat(parts), expected_weight(target))
    finally:
        ranks.close()
