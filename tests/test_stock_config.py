"""The README's two ways to change the loss of a stock mmseg config, on the installed stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_recall.models import swap_loss

STOCK = 'deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-769x769.py'
LOSS_BASES = Path(__file__).parents[1] / 'configs/_base_/losses'


OVERRIDE = """
_base_ = 'mmseg::{stock}'
import mmseg_recall
model = dict(
    decode_head=dict(loss_decode=dict(type='RecallLoss')),
    auxiliary_head=dict(loss_decode=dict(type='RecallLoss')))
"""

ONE_MORE_BASE = """
_base_ = ['{losses}/recall.py', 'mmseg::{stock}']
"""


@pytest.mark.parametrize('text', [OVERRIDE, ONE_MORE_BASE], ids=['override', 'one more base'])
def test_only_the_loss_changes(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'config.py'
    path.write_text(text.format(stock=STOCK, losses=LOSS_BASES))
    config = Config.fromfile(path)
    init_default_scope('mmseg')
    if text == ONE_MORE_BASE:
        config = swap_loss(config)
    config.model.update(pretrained=None)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    assert type(model.decode_head.loss_decode).__name__ == 'RecallLoss'
    assert type(model.auxiliary_head.loss_decode).__name__ == 'RecallLoss'
    assert model.auxiliary_head.loss_decode.loss_weight == 0.4

    label = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 19, (1, 65, 65))))
    losses = model.loss(torch.randn(2, 3, 65, 65), [label, label])
    total, _ = model.parse_losses(losses)
    total.backward()
    assert losses['decode.loss_recall'] > 0 and losses['aux.loss_recall'] > 0
