"""tools/dist_train.sh on two processes without a GPU follows tools/train.py on one."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
import torch

from mmseg_recall.datasets.convert import convert_dataset
from mmseg_recall.datasets.mini_scenes import write_mini_scenes
from tests.tools.run import ROOT, run

CONFIG = ROOT / 'configs/recall/deeplabv3_r18_synthia-mini.py'
ITERATIONS = 4

# Batch normalisation sees the images of its own process only, and dropout differs between them:
# what is left without them is the loss, the data order and the optimiser.
EXACT = [
    'model.backbone.norm_cfg.type=GN',
    'model.backbone.norm_cfg.num_groups=4',
    'model.decode_head.norm_cfg.type=GN',
    'model.decode_head.norm_cfg.num_groups=4',
    'model.decode_head.dropout_ratio=0',
    # Adam divides by the gradient's own size, so that it blows up the noise of small ones.
    'optim_wrapper.optimizer.type=SGD',
    'optim_wrapper.optimizer.lr=0.1',
    'imbalance_loss.momentum=0.5',
]


def options(folder: Path) -> list[str]:
    splits = ('train', 'val', 'test')
    return [
        '--cfg-options',
        *(f'{split}_dataloader.dataset.data_root={folder}' for split in splits),
        'train_dataloader.dataset.pipeline.2.crop_size=(48,96)',
        'model.data_preprocessor.size=(48,96)',
        f'train_cfg.max_iters={ITERATIONS}',
        f'train_cfg.val_interval={ITERATIONS}',
        f'default_hooks.checkpoint.interval={ITERATIONS}',
        'default_hooks.logger.interval=1',
        'custom_hooks.0.type=ClassWeightHook',
        *EXACT,
    ]


def free_port() -> str:
    with socket.socket() as s:
        s.bind(('', 0))
        return str(s.getsockname()[1])


def logged(work_dir: Path) -> list[dict[str, float]]:
    """Weights and recalls of each iteration, and the metrics of the validation."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = ('decode_head/', 'mIoU', 'mAcc', 'aAcc')
    found = [{k: v for k, v in line.items() if k.startswith(names)} for line in lines]
    return [line for line in found if line]


@pytest.mark.slow
def test_two_ranks_with_batch_3_follow_one_with_batch_6(tmp_path: Path) -> None:
    write_mini_scenes(tmp_path / 'raw', frames=10, width=96, height=48, seed=0)
    convert_dataset('synthia', tmp_path / 'raw', tmp_path / 'data')
    common = options(tmp_path / 'data')
    one, two = tmp_path / 'one', tmp_path / 'two'
    run(
        ROOT / 'tools/train.py', CONFIG, '--work-dir', one, *common,
        'train_dataloader.batch_size=6', cwd=tmp_path,
    )  # fmt: skip
    run(
        'bash', ROOT / 'tools/dist_train.sh', CONFIG, '2', '--work-dir', two, *common,
        'train_dataloader.batch_size=3', cwd=tmp_path, PYTHON=sys.executable, PORT=free_port(),
    )  # fmt: skip
    assert len(logged(one)) == ITERATIONS + 1
    for mine, theirs in zip(logged(two), logged(one), strict=True):
        # Counts of pixels, of which one near a tie may fall to the other side.
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4, nan_ok=True)
    states = [
        torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=True)['state_dict']
        for folder in (two, one)
    ]
    assert any('running_recall' in name for name in states[0])
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6, equal_nan=True)
