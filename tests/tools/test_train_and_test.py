"""The synthia-mini config through train.py, --resume, test.py and the dist scripts."""

import json
import socket
import sys
from pathlib import Path

import pytest

from mmseg_recall.datasets.convert import convert_dataset
from mmseg_recall.datasets.mini_scenes import write_mini_scenes

from .run import ROOT, run

CONFIG = ROOT / 'configs/recall/deeplabv3_r18_synthia-mini.py'
TOOLS = ROOT / 'tools'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def options(tmp_path_factory) -> list[str]:
    """Overrides for a tiny rendered set and four iterations."""
    folder = tmp_path_factory.mktemp('mini')
    write_mini_scenes(folder / 'raw', frames=10, width=96, height=48, seed=0)
    convert_dataset('synthia', folder / 'raw', folder / 'data')
    roots = [
        f'{s}_dataloader.dataset.data_root={folder / "data"}' for s in ('train', 'val', 'test')
    ]
    return [
        '--cfg-options',
        *roots,
        'train_dataloader.dataset.pipeline.2.crop_size=(48,96)',
        'model.data_preprocessor.size=(48,96)',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1',
    ]


def scalars(work_dir: Path) -> list[dict]:
    """The training log of the newest run in a work folder."""
    (*_, newest) = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def test_train_resume_test(options, tmp_path):
    run(TOOLS / 'train.py', CONFIG, '--work-dir', tmp_path, *options)
    log = scalars(tmp_path)
    assert [row['iter'] for row in log if 'loss' in row] == [1, 2, 3, 4]
    assert all(row['decode.loss_recall'] > 0 for row in log if 'loss' in row)
    (val,) = (row for row in log if 'mIoU' in row)

    (best,) = tmp_path.glob('best_mIoU_iter_4.pth')
    # The config that the run left behind is complete: it works without the checkout's.
    dumped = tmp_path / CONFIG.name
    output = run(TOOLS / 'test.py', dumped, best, '--work-dir', tmp_path / 'test', *on_val(options))
    assert 'per class results' in output
    assert '| traffic light |' in output
    (result,) = (tmp_path / 'test').glob('*/*.json')
    metrics = json.loads(result.read_text())
    assert (metrics['mIoU'], metrics['mAcc']) == (val['mIoU'], val['mAcc'])

    counts = ','.join(str(2**c) for c in range(13, 0, -1))
    for tau in (0, 5):
        run(
            TOOLS / 'test.py', CONFIG, best, '--work-dir', tmp_path / f'tau{tau}', *on_val(options),
            f'logit_adjustment.tau={tau}', f'class_counts=[{counts}]',
        )  # fmt: skip
        (result,) = (tmp_path / f'tau{tau}').glob('*/*.json')
        assert (json.loads(result.read_text())['mIoU'] == val['mIoU']) == (tau == 0)

    output = run(
        TOOLS / 'train.py', CONFIG, '--work-dir', tmp_path, '--resume', *options,
        'train_cfg.max_iters=6',
    )  # fmt: skip
    assert 'resumed epoch: 0, iter: 4' in output
    assert [row['iter'] for row in scalars(tmp_path) if 'loss' in row] == [5, 6]


def on_val(options: list[str]) -> list[str]:
    """The overrides, with the validation images in the place of the test images."""
    prefix = 'test_dataloader.dataset.data_prefix'
    return [*options, f'{prefix}.img_path=images/val', f'{prefix}.seg_map_path=annotations/val']


def test_two_processes_without_a_gpu(options, tmp_path):
    with socket.socket() as s:
        s.bind(('', 0))
        port = str(s.getsockname()[1])
    env = dict(PYTHON=sys.executable, PORT=port)
    run(
        'bash', TOOLS / 'dist_train.sh', CONFIG, '2', '--work-dir', tmp_path, *options, **env
    )  # fmt: skip
    output = run(
        'bash', TOOLS / 'dist_test.sh', CONFIG, tmp_path / 'iter_4.pth', '2',
        '--work-dir', tmp_path / 'test', *options, **env,
    )  # fmt: skip
    assert 'per class results' in output
    assert [row['iter'] for row in scalars(tmp_path) if 'loss' in row] == [1, 2, 3, 4]
