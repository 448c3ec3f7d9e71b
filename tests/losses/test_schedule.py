"""Weights that move from or to 1 over the training."""

from __future__ import annotations

import math
from inspect import signature

import pytest
import torch

from mmseg_recall import RecallLoss
from mmseg_recall.losses import ClassWeightedLoss, available_losses
from mmseg_recall.losses.inverse_frequency import InverseFrequencyLoss
from mmseg_recall.losses.schedule import Schedule

WEIGHTED = {
    name: cls for name, cls in available_losses().items() if issubclass(cls, ClassWeightedLoss)
}
LOGITS = torch.zeros(1, 2, 4)
TARGET = torch.tensor([[0, 0, 0, 1]])


def make(cls: type, **options) -> torch.nn.Module:
    counts = {'class_counts': [3, 1]} if 'class_counts' in signature(cls).parameters else {}
    return cls(**counts, **options)


def weights(loss: torch.nn.Module, batches: int) -> list[float]:
    """Of the second class, batch after batch."""
    found = []
    for _ in range(batches):
        loss(LOGITS, TARGET)
        found.append(loss.last_weight[1].item())
    return found


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        (dict(until=4), [1, 0.75, 0.5, 0.25, 0, 0]),
        (dict(start=0.0, end=1.0, until=2), [0, 0.5, 1, 1]),
        (dict(start=1.0, end=0.5, begin=1, until=3), [1, 1, 0.75, 0.5]),
        (dict(kind='cosine', until=4), [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]),
        (dict(kind='step', begin=2), [1, 1, 0, 0]),
        (dict(kind='step', start=0.0, end=1.0, begin=1), [0, 1, 1]),
    ],
    ids=str,
)
def test_the_mix_is_that_of_the_formula(schedule: dict, expected: list[float]) -> None:
    mixes = [Schedule(**schedule).mix(torch.tensor(t)).item() for t in range(len(expected))]
    assert mixes == pytest.approx(expected, abs=1e-6)
    # N / (C N_c) = 2, of which the schedule leaves a part.
    loss = InverseFrequencyLoss(class_counts=[3, 1], schedule=schedule)
    assert weights(loss, len(expected)) == pytest.approx([1 + m for m in expected], abs=1e-6)


@pytest.mark.parametrize('cls', WEIGHTED.values(), ids=WEIGHTED)
def test_every_class_weighted_loss_ends_as_cross_entropy(cls: type) -> None:
    loss = make(cls, schedule=dict(until=2))
    unscheduled = make(cls)
    assert torch.equal(loss(LOGITS, TARGET), unscheduled(LOGITS, TARGET))
    loss(LOGITS, TARGET)
    assert loss(LOGITS, TARGET).item() == pytest.approx(math.log(2))
    assert loss.last_weight.tolist() == [1, 1]  # which the hook logs


@pytest.mark.parametrize('cls', WEIGHTED.values(), ids=WEIGHTED)
def test_a_resumed_training_goes_on_where_it_was(cls: type) -> None:
    schedule = dict(kind='cosine', until=5)
    undisturbed = weights(make(cls, schedule=schedule), 5)
    loss = make(cls, schedule=schedule)
    first = weights(loss, 2)
    weights(loss.eval(), 3)  # validation is no training
    resumed = make(cls, schedule=schedule)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.batches == 2
    assert first + weights(resumed, 3) == undisturbed


def test_what_has_no_schedule_counts_no_batches() -> None:
    loss = RecallLoss()
    loss(LOGITS, TARGET)
    assert loss.batches is None and not loss.state_dict()


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (dict(begin=9, until=3), 'ends before it starts: schedule.until is 3, begin is 9'),
        (dict(begin=3, until=3), 'ends before it starts'),
        (dict(begin=-1, until=3), 'schedule.begin .*-1'),
        (dict(begin=0.5, until=3), 'schedule.begin .*0.5'),
        (dict(until=-3), 'schedule.until .*-3'),
        ({}, 'train_cfg.max_iters'),
        (dict(kind='step', until=3), 'leave out until'),
        (dict(kind='sudden', until=3), "'linear', 'cosine' or 'step', got 'sudden'"),
        (dict(start=1.5, until=3), 'schedule.start .*1.5'),
        (dict(end=float('nan'), until=3), 'schedule.end .*nan'),
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused(schedule: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecallLoss(schedule=schedule)
