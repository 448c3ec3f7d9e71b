"""The demo on few small images: its table against mmseg's own figures."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from .run import ROOT, run

pytestmark = pytest.mark.slow


def test_table_agrees_with_stock_test(tmp_path):
    # The demo makes data/ where it runs; a tiny set in its place is taken as complete.
    raw, data = tmp_path / 'data/synthia-mini-raw', tmp_path / 'data/synthia-mini'
    run(ROOT / 'tools/render_mini_scenes.py', '--out', raw, '--frames', '10', '--size', '96x48')
    run(ROOT / 'tools/convert_dataset.py', 'synthia', raw, '--out', data)
    output = run(
        ROOT / 'tools/demo.py', '--work-dir', 'demo', '--cfg-options',
        'train_dataloader.dataset.pipeline.2.crop_size=(48,96)',
        'model.data_preprocessor.size=(48,96)', 'train_dataloader.batch_size=2',
        'train_cfg.max_iters=3', 'train_cfg.val_interval=3',
        'default_hooks.checkpoint.interval=3',
        cwd=tmp_path, COLUMNS='120',
    )  # fmt: skip
    (mean_row,) = re.findall(r'all \(mAcc, mIoU\)(.*)', output)
    accuracy_ce, accuracy_recall, iou_ce, iou_recall = map(float, re.findall(r'[\d.]+', mean_row))
    for loss, accuracy, iou in [
        ('ce', accuracy_ce, iou_ce),
        ('recall', accuracy_recall, iou_recall),
    ]:
        (result,) = (tmp_path / 'demo' / loss / 'test').glob('*/*.json')
        stock = json.loads(result.read_text())
        # The table shows one decimal, mmseg two.
        assert (accuracy, iou) == pytest.approx((stock['mAcc'], stock['mIoU']), abs=0.0551)
    picture = np.array(Image.open(tmp_path / 'demo/comparison.png'))
    assert picture.shape[1] > 1000
    assert 'demo/comparison.png' in output
