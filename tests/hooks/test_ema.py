"""mmengine's EMAHook with the losses that keep something as they train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from .test_class_weight_hook import Images, Segmentor


def state_after(work_dir: Path, iterations: int, loss: dict, ema: dict) -> dict[str, Tensor]:
    """Train, on from the last checkpoint if there is one; the last checkpoint's model."""
    runner = Runner(
        Segmentor(decode_head=loss),
        str(work_dir),
        train_dataloader=DataLoader(Images(), batch_size=2),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
        custom_hooks=[dict(type='EMAHook', momentum=0.5, **ema)],
        resume=(work_dir / 'last_checkpoint').exists(),
        experiment_name=work_dir.name,
        default_scope='mmseg',
    )
    runner.train()
    saved = torch.load(work_dir / f'iter_{iterations}.pth', weights_only=False)
    assert not torch.equal(
        saved['state_dict']['conv.weight'], saved['ema_state_dict']['module.conv.weight']
    )
    return saved['state_dict']


@pytest.mark.parametrize('ema', [{}, dict(update_buffers=True), dict(begin_iter=1)], ids=str)
@pytest.mark.parametrize(
    ('loss', 'kept'),
    [
        (
            dict(type='RecallLoss', momentum=0.9, schedule=dict(until=3)),
            ['running_recall', 'batches'],
        ),
        (dict(type='SeesawLoss'), ['pixels']),
    ],
    ids=['RecallLoss', 'SeesawLoss'],
)
def test_a_training_and_its_resumption(tmp_path: Path, loss: dict, kept: list, ema: dict) -> None:
    undisturbed = state_after(tmp_path / 'undisturbed', 4, loss, ema)
    state_after(tmp_path / 'resumed', 2, loss, ema)
    resumed = state_after(tmp_path / 'resumed', 4, loss, ema)
    assert {f'decode_head.loss_decode.{name}' for name in kept} < set(resumed)
    torch.testing.assert_close(resumed, undisturbed, rtol=0, atol=0, equal_nan=True)
