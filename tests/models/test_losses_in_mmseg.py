"""The losses in what mmseg and mmengine build around them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from mmengine.model import ExponentialMovingAverage
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_recall import RecallLoss, SeesawLoss, class_nll_sums
from tests.losses.batches import Batch, batches
from tests.losses.test_inputs import batch
from tests.losses.test_properties import build, every_loss, random_batch


@every_loss
def test_is_a_loss_of_a_decode_head(name: str) -> None:
    torch.manual_seed(0)
    loss = build(name, 5)
    config = dict(type=name, loss_weight=0.5)
    if hasattr(loss, 'source'):
        config['class_counts'] = [1, 2, 3, 4, 5]
    ce = dict(type='CrossEntropyLoss', avg_non_ignore=True)
    head = MODELS.build(
        dict(
            type='FCNHead', in_channels=4, channels=4, num_convs=1, num_classes=5,
            norm_cfg=dict(type='BN'), loss_decode=[ce, config],
        )
    )  # fmt: skip
    label = torch.randint(0, 5, (1, 16, 16))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for _ in range(2)]
    losses = head.loss([torch.randn(2, 4, 8, 8)], samples, train_cfg={})
    total = losses['loss_ce'] + losses[loss.loss_name]
    total.backward()
    assert losses[loss.loss_name] > 0
    assert head.conv_seg.weight.grad.abs().sum() > 0


class Model(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.loss = loss


@pytest.mark.parametrize('update_buffers', [False, True])
@pytest.mark.parametrize(
    'make', [lambda: RecallLoss(momentum=0.9, schedule=dict(until=3)), SeesawLoss]
)
def test_an_average_of_the_model(make, update_buffers: bool) -> None:
    """EMAHook copies the model before its first batch."""
    model = Model(make())
    averaged = ExponentialMovingAverage(model, update_buffers=update_buffers)
    for _ in range(2):
        logits, target = batch()
        model.loss(model.conv(logits), target)
        averaged.update_parameters(model)
    state = model.state_dict()
    assert {name for name in state if name.startswith('loss.')} == {
        f'loss.{name}' for name in model.loss.running_names
    }
    fresh = Model(make())
    fresh.load_state_dict(state)
    fresh.load_state_dict(averaged.module.state_dict())
    for name in fresh.loss.running_names:
        torch.testing.assert_close(
            getattr(fresh.loss, name), getattr(model.loss, name), equal_nan=True
        )


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_counts_equal_the_areas_of_ioumetric(batch: Batch) -> None:
    _, counts = class_nll_sums(batch.logits, batch.target)
    intersect, _, predicted, label = IoUMetric.intersect_and_union(
        batch.logits.detach().argmax(1), batch.target, batch.num_classes, 255
    )
    assert torch.equal(counts.true_positives.float(), intersect)
    assert torch.equal(counts.predicted.float(), predicted)
    assert torch.equal(counts.pixels.float(), label)


def test_the_logged_accuracy_is_that_of_what_the_model_predicts() -> None:
    loss = dict(type='LogitAdjustedLoss', class_counts=[100, 20, 5, 3, 1])
    head = MODELS.build(
        dict(type='FusedFCNHead', in_channels=4, channels=4, num_classes=5, loss_decode=loss)
    )
    batch = random_batch()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=y.unsqueeze(0))) for y in batch.target]
    log = head.loss_by_feat(batch.logits, samples)
    expected = accuracy(batch.logits, batch.target, ignore_index=255)
    assert torch.equal(log['acc_seg'], expected)
