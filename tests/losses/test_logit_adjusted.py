"""The logit-adjusted loss: what it teaches, and what the model then predicts from."""

from __future__ import annotations

import torch
import torch.nn.functional as F

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


def test_large_logits_keep_the_adjustment() -> None:
    logits = torch.full((1, 2, 1), 60_000.0)
    value = LogitAdjustedLoss([3, 1])(logits, torch.tensor([[1]]))
    torch.testing.assert_close(value, torch.tensor(4.0).log())
