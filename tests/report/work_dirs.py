"""Work directories as stock mmseg leaves them: whole, half-written and damaged."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = """\
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ResNetV1c', depth=50),
    decode_head=dict(type='FCNHead', loss_decode=dict(type={loss!r}, use_sigmoid=False)))
train_dataloader = dict(batch_size=4)
test_dataloader = dict(dataset=dict(type='PascalVOCDataset', data_root='data/voc'))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200)
randomness = dict(seed={seed})
"""
TABLE = """\
2024/01/01 00:00:00 - mmengine - INFO - per class results:
2024/01/01 00:00:00 - mmengine - INFO -
+------------+-------+-------+
|   Class    |  IoU  |  Acc  |
+------------+-------+-------+
| background | {0:5.2f} | 98.00 |
|    bird    | 40.00 | 50.00 |
|   bottle   |  nan  |  nan  |
|    boat    |  0.0  |  0.0  |
+------------+-------+-------+
2024/01/01 00:00:00 - mmengine - INFO - Iter(val) [10/10]    aAcc: 95.0  mIoU: 60.0  mAcc: 70.0
"""


def work_dir(
    path: Path, loss: str = 'CrossEntropyLoss', seed: int = 0, tested: bool = False
) -> Path:
    """One trained and validated (with ``tested`` also tested) run."""
    attempt = path / '20240101_000000'
    (attempt / 'vis_data').mkdir(parents=True)
    (path / 'fcn_r50_voc.py').write_text(CONFIG.format(loss=loss, seed=seed))
    lines = [
        {'loss': 2.0 / i, 'time': 0.2 * i, 'memory': 5000 + i, 'iter': 50 * i, 'step': 50 * i}
        for i in (1, 2, 3, 4)
    ]
    lines.append({'aAcc': 95.0, 'mIoU': 60.0 + seed, 'mAcc': 70.0, 'time': 0.1, 'step': 200})
    text = '\n'.join(json.dumps(line) for line in lines)
    (attempt / 'vis_data' / 'scalars.json').write_text(text + '\n{"loss": 0.1, "ti')
    # An earlier validation, then the last one.
    (attempt / '20240101_000000.log').write_text(TABLE.format(80.0) + TABLE.format(95.0))
    if tested:
        test = path / '20240101_010000'
        test.mkdir()
        metrics = {'aAcc': 90.0, 'mIoU': 55.0, 'mAcc': 65.0, 'data_time': 0.1, 'time': 0.2}
        (test / '20240101_010000.json').write_text(json.dumps(metrics))
        (test / '20240101_010000.log').write_text(TABLE.format(90.0))
    return path
