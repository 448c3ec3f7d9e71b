"""What the docs name for the mean over images of Lovasz-Softmax is that."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_recall import LovaszSoftmaxLoss


@pytest.mark.parametrize('ignored', [0, 5])
def test_mmsegs_own_option_is_the_mean_over_the_images(ignored: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 12, 16, generator=generator)
    target = torch.randint(0, 4, (3, 12, 16), generator=generator)
    target[:, :ignored] = 255
    target[0, ignored:] %= 2  # not every class is on every image
    theirs = MODELS.build(Config(dict(loss=dict(type='mmseg.LovaszLoss', per_image=True))).loss)
    ours = LovaszSoftmaxLoss()
    mean = torch.stack([ours(logits[i : i + 1], target[i : i + 1]) for i in range(3)]).mean()
    torch.testing.assert_close(theirs(logits, target, ignore_index=255), mean)
    assert abs(float(ours(logits, target) - mean)) > 1e-4  # so that there is something to see
