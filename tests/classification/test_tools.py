"""A network is trained, resumed, tested, exported, and tested again with other heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmseg_recall  # noqa: F401  (lets torch load what mmengine keeps in a checkpoint)
from tests.tools.run import ROOT, run

TOOLS = ROOT / 'tools/classification'
COUNTS = dict(blue=8, green=3, red=1)

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
counts = {counts}
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=3, mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True),
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='SDNHead', num_classes=3, in_channels=64, cal_acc=True,
        loss=dict(type='RecallLoss', momentum=0.9),
        loss_classifier=dict(type='ClassBalancedLoss', class_counts=counts)))
loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
images = dict(type='CustomDataset', data_prefix='{images}')
train_dataloader = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**images, pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
val_dataloader = dict(
    **loader, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=train_dataloader['dataset'])
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
test_cfg = dict()
custom_hooks = [dict(type='DeferredReweightingHook', begin=1)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=0)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a data set of noisy colours, long-tailed."""
    generator = np.random.default_rng(0)
    for channel, (name, count) in enumerate(COUNTS.items()):
        folder = tmp_path / 'images' / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 80, (32, 32, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(folder / f'{i}.png')
    path = tmp_path / 'config.py'
    text = CONFIG.format(counts=list(COUNTS.values()), images=tmp_path / 'images')
    path.write_text(text)
    return path


def scalars(work_dir: Path) -> list[dict]:
    (*_, newest) = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def accuracy(config: Path, checkpoint: Path, *options: str) -> float:
    work_dir = checkpoint.parent / 'tested'
    run(
        TOOLS / 'test.py', config, checkpoint, '--work-dir', work_dir, '--out-item', 'metrics',
        '--out', work_dir / 'metrics.json', '--cfg-options', 'randomness.seed=1', *options,
    )  # fmt: skip
    return json.loads((work_dir / 'metrics.json').read_text())['accuracy/top1']


@pytest.mark.slow
def test_train_resume_test_export(config: Path) -> None:
    work_dir = config.parent / 'work'
    run(TOOLS / 'train.py', config, '--work-dir', work_dir)
    run(
        TOOLS / 'train.py', config, '--work-dir', work_dir, '--resume',
        '--cfg-options', 'train_cfg.max_epochs=3',
    )  # fmt: skip
    rows = scalars(work_dir)
    losses = [row for row in rows if 'loss' in row]
    assert [row['epoch'] for row in losses] == [3, 3, 3]  # the run went on where it was
    for row in losses:
        parts = row['loss_feature'] + row['loss_classifier']
        assert row['loss'] == pytest.approx(parts, rel=1e-5)
    (validated,) = (row['accuracy/top1'] for row in rows if 'accuracy/top1' in row)

    # Atomic checkpoints: nothing half-written is left, and the pointer names the last one.
    assert not list(work_dir.glob('*.tmp'))
    checkpoint = work_dir / 'epoch_3.pth'
    assert (work_dir / 'last_checkpoint').read_text() == str(checkpoint)
    state_dict = torch.load(checkpoint, weights_only=True)['state_dict']
    assert not state_dict['head.feature_head.loss_module.running_recall'].isnan().any()

    assert accuracy(config, checkpoint) == validated
    exported = work_dir / 'plain.pth'
    run(TOOLS / 'export_sdn.py', checkpoint, '--out', exported)
    plain = 'model.head._delete_=True', 'model.head.num_classes=3', 'model.head.in_channels=64'
    assert accuracy(config, exported, *plain, 'model.head.type=LinearClsHead') == validated
    post_hoc = 'model.head.type=TauNormalizedHead', 'model.head.tau=1.0'
    assert 0 <= accuracy(config, exported, *plain, *post_hoc) <= 100
