"""The logit-adjusted loss: what it teaches, and what the model then predicts from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.losses import accuracy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_recall.losses.logit_adjusted import LogitAdjustedLoss
from tests.losses.test_properties import random_batch

COUNTS = [100, 20, 5, 3, 1]


def test_tau_of_one_is_the_balanced_softmax() -> None:
    """Ren et al.: N_y e^z_y / sum_c N_c e^z_c."""
    batch = random_batch(dtype=torch.float64)
    terms = torch.tensor(COUNTS).view(-1, 1, 1) * batch.logits.exp()
    p = terms / terms.sum(1, keepdim=True)
    expected = F.nll_loss(p.log(), batch.target, ignore_index=255)
    torch.testing.assert_close(LogitAdjustedLoss(COUNTS)(batch.logits, batch.target), expected)


def test_tau_of_zero_is_cross_entropy() -> None:
    batch = random_batch(dtype=torch.float64)
    expected = F.cross_entropy(batch.logits, batch.target, ignore_index=255)
    value = LogitAdjustedLoss(COUNTS, tau=0)(batch.logits, batch.target)
    torch.testing.assert_close(value, expected)


def test_the_logged_accuracy_is_that_of_what_the_model_predicts() -> None:
    loss = dict(type='LogitAdjustedLoss', class_counts=COUNTS)
    head = MODELS.build(
        dict(type='FusedFCNHead', in_channels=4, channels=4, num_classes=5, loss_decode=loss)
    )
    batch = random_batch()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=y.unsqueeze(0))) for y in batch.target]
    log = head.loss_by_feat(batch.logits, samples)
    expected = accuracy(batch.logits, batch.target, ignore_index=255)
    assert torch.equal(log['acc_seg'], expected)


def test_large_logits_keep_the_adjustment() -> None:
    logits = torch.full((1, 2, 1), 60_000.0)
    value = LogitAdjustedLoss([3, 1])(logits, torch.tensor([[1]]))
    torch.testing.assert_close(value, torch.tensor(4.0).log())
