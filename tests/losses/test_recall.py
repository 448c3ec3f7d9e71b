"""RecallLoss: the identities of the paper, the running recall, and its options."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from mmseg_recall.functional import (
    ClassCounts,
    class_nll_sums,
    recall,
    recall_weight,
    weighted_mean,
)
from mmseg_recall.losses import InverseFrequencyLoss, MetricWeightedLoss, RecallLoss
from mmseg_recall.losses.prior_recall import PriorRecallLoss
from tests.losses.batches import Batch, batches
from tests.losses.test_properties import random_batch


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_weights_of_one_give_mean_cross_entropy(batch: Batch) -> None:
    sums, counts = class_nll_sums(batch.logits, batch.target)
    value = weighted_mean(sums, torch.ones(batch.num_classes).double(), counts.pixels)
    # Before recall takes over.
    later = dict(kind='step', start=0.0, end=1.0, begin=1)
    loss = RecallLoss(schedule=later)
    # From the logits its sums stay in float64, which rounds once.
    torch.testing.assert_close(loss(batch.logits, batch.target), value, rtol=1e-6, atol=1e-6)
    loss = RecallLoss(schedule=later)
    assert torch.equal(value, loss.from_sums(sums, counts))
    assert torch.all(loss.last_weight[counts.pixels > 0] == 1)
    if batch.valid.any():
        expected = F.cross_entropy(batch.logits.double(), batch.target, ignore_index=255)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_weight_bounds_of_eq_3(batch: Batch) -> None:
    _, counts = class_nll_sums(batch.logits, batch.target)
    weight = recall_weight(counts)
    present = counts.pixels > 0
    assert torch.all((weight[present] >= 0) & (weight[present] <= 1))
    assert torch.all(weight[~present].isnan())
    # FN_c, the weight times N_c, lies between 0 and N_c.
    false_negatives = (weight * counts.pixels)[present]
    assert torch.all((false_negatives >= -1e-9) & (false_negatives <= counts.pixels[present]))


def test_gradient_identity_of_eq_7_and_8() -> None:
    """Two classes: dL/dz_1 summed over pixels is FN_1 (P_1^(1) - 1) + FP_1 P_1^(2)."""
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 8, 9, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, (1, 8, 9))
    (RecallLoss()(logits, target) * target.numel()).backward()

    p1 = logits.detach().softmax(1)[:, 0]
    prediction = logits.detach().argmax(1)
    fn_1 = ((target == 0) & (prediction == 1)).sum()
    fp_1 = ((target == 1) & (prediction == 0)).sum()
    expected = fn_1 * (p1[target == 0].mean() - 1) + fp_1 * p1[target == 1].mean()
    torch.testing.assert_close(logits.grad[:, 0].sum(), expected)
    torch.testing.assert_close(logits.grad[:, 1].sum(), -expected)


def test_weights_normalization_is_that_of_cross_entropy() -> None:
    batch = random_batch()
    loss = RecallLoss(normalization='weights')
    value = loss(batch.logits, batch.target)
    weight = loss.last_weight.nan_to_num(0).float()
    expected = F.cross_entropy(batch.logits, batch.target, weight=weight, ignore_index=255)
    torch.testing.assert_close(value, expected)


def test_perfect_recall_gives_zero_under_both_normalizations() -> None:
    logits = torch.tensor([[[9.0], [0.0]]], requires_grad=True)
    for normalization in ('pixels', 'weights'):
        value = RecallLoss(normalization=normalization)(logits, torch.tensor([[0]]))
        assert value.item() == 0
        assert torch.autograd.grad(value, logits)[0].abs().sum() == 0


def test_absent_class_takes_no_part_and_is_logged_as_nan() -> None:
    loss = RecallLoss()
    loss(torch.zeros(1, 3, 4), torch.tensor([[0, 0, 1, 255]]))
    assert loss.last_weight.isnan().tolist() == [False, False, True]
    assert loss.last_weight[:2].tolist() == [0.0, 1.0]
    assert loss.last_counts.pixels.tolist() == [2, 1, 0]


def logits_with_recall(hits: int, pixels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``pixels`` pixels of class 0 of which the first ``hits`` are predicted right."""
    prediction = torch.tensor([[0] * hits + [1] * (pixels - hits)])
    return 5.0 * F.one_hot(prediction, 3).movedim(-1, 1).float(), torch.zeros(1, pixels).long()


def test_running_recall() -> None:
    loss = RecallLoss(momentum=0.75)
    loss(*logits_with_recall(1, 4))
    assert loss.running_recall[0] == 0.25  # the first batch that has the class sets it
    assert loss.running_recall[1:].isnan().all()
    loss(*logits_with_recall(3, 4))
    assert loss.running_recall[0] == 0.75 * 0.25 + 0.25 * 0.75
    assert loss.last_weight[0] == 1 - loss.running_recall[0]

    before = loss.running_recall.clone()
    logits, _ = logits_with_recall(1, 4)
    loss(logits, torch.ones(1, 4).long())
    assert loss.running_recall[0] == before[0]  # absent: keeps what it had
    assert loss.running_recall[1] == 0.75  # three of four pixels are predicted 1
    before = loss.running_recall.clone()
    loss.eval()(*logits_with_recall(4, 4))
    torch.testing.assert_close(loss.running_recall, before, equal_nan=True)


def test_running_recall_is_kept_in_the_checkpoint() -> None:
    loss = RecallLoss(momentum=0.9)
    loss(*logits_with_recall(1, 4))
    resumed = RecallLoss(momentum=0.9)
    resumed.load_state_dict(loss.state_dict())
    batch = logits_with_recall(2, 4)
    assert torch.equal(resumed(*batch), loss(*batch))
    torch.testing.assert_close(resumed.running_recall, loss.running_recall, equal_nan=True)
    assert not RecallLoss().state_dict()
    resumed.load_state_dict({'running_recall': torch.empty(0)})  # of a loss before its first batch
    assert resumed.running_recall is None


def test_it_starts_afresh_for_another_number_of_classes() -> None:
    later = dict(kind='step', start=0.0, end=1.0, begin=2)
    trained = RecallLoss(momentum=0.9, schedule=later)
    for _ in range(3):
        trained(*logits_with_recall(1, 4))
    loss = RecallLoss(momentum=0.9, schedule=later)
    loss.load_state_dict(trained.state_dict())
    with pytest.warns(UserWarning, match='3 classes and the logits have 4') as said:
        loss(torch.zeros(1, 4, 2), torch.zeros(1, 2).long())
        loss(torch.zeros(1, 4, 2), torch.zeros(1, 2).long())
    assert loss.last_weight[0] == 1  # the batches are counted anew
    assert loss.running_recall[0] == 1 and loss.running_recall[1:].isnan().all()
    assert len(said) == 1


def test_smoothing() -> None:
    loss = RecallLoss(smoothing=1.0)
    loss(*logits_with_recall(4, 4))
    assert loss.last_weight[0] == 1 / 5


def test_weights_normalization_is_a_mean_weight_of_one() -> None:
    batch = random_batch()
    loss = RecallLoss(normalization='weights')
    value = loss(batch.logits, batch.target)
    weight = loss.last_weight.nan_to_num(0)[batch.target.clamp_max(4)]
    valid = batch.target != 255
    weight = weight / weight[valid].mean()
    nll = F.cross_entropy(batch.logits, batch.target, ignore_index=255, reduction='none')
    torch.testing.assert_close(value.double(), (weight * nll)[valid].mean(), rtol=1e-6, atol=0)


def test_a_prior_multiplies_the_weights() -> None:
    batch = random_batch()
    counts = dict(class_counts=[5, 1, 0, 7, 3], exponent=0.5)
    losses = InverseFrequencyLoss(**counts), RecallLoss(), PriorRecallLoss(**counts)
    for loss in losses:
        loss(batch.logits, batch.target)
    prior, recall_alone, both = (loss.last_weight for loss in losses)
    torch.testing.assert_close(both, prior * recall_alone, rtol=0, atol=0, equal_nan=True)
    assert 'class_counts' not in signature(RecallLoss).parameters  # which the swap would fill in


def test_pixel_weight_of_a_sampler() -> None:
    batch = random_batch()
    loss = RecallLoss()
    ones = torch.ones_like(batch.target).float()
    full = loss(batch.logits, batch.target)
    torch.testing.assert_close(loss(batch.logits, batch.target, weight=ones), full)
    torch.testing.assert_close(loss(batch.logits, batch.target, weight=2 * ones), 2 * full)
    assert loss(batch.logits, batch.target, weight=0 * ones) == 0


def test_recall_is_a_metric_of_the_metric_weighted_loss() -> None:
    batch = random_batch()
    expected = RecallLoss()(batch.logits, batch.target)
    assert torch.equal(MetricWeightedLoss('recall')(batch.logits, batch.target), expected)


def test_precision_weight_rewards_false_positives() -> None:
    """Eq. 9: more false positives of a class raise its weight; recall does not move."""
    few = ClassCounts(*torch.tensor([[10, 90], [5, 80], [6, 94]]))
    many = ClassCounts(*torch.tensor([[10, 90], [5, 60], [35, 65]]))
    precision = MetricWeightedLoss('precision')
    assert precision.class_weight(many)[0] > precision.class_weight(few)[0]
    assert recall(many)[0] == recall(few)[0]


@pytest.mark.parametrize(
    'options',
    [
        dict(momentum=1.0),
        dict(momentum=-0.1),
        dict(momentum=float('nan')),
        dict(smoothing=-1.0),
        dict(smoothing=float('inf')),
        dict(normalization='sum'),
        dict(impl='fast'),
    ],
)
def test_bad_options_are_refused(options: dict) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        RecallLoss(**options)
