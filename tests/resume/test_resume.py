"""Killed at any moment and resumed, a run ends with the bits of one that nobody disturbed."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mmseg_recall.checkpoints import best_checkpoint, is_whole
from tests.datasets import stubs

from .training import FLIP, KILLS, SEED, train, write_config


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('camvid')
    stubs.tree(folder, {'train': 7, 'val': 2}, count=11)
    return folder


@pytest.fixture(scope='module')
def undisturbed(root, tmp_path_factory) -> Path:
    """The work directory of 40 iterations in one go."""
    return run_through(root, tmp_path_factory.mktemp('undisturbed'))


def run_through(root: Path, folder: Path, **options: Any) -> Path:
    config = write_config(folder / 'config.py', root, **options)
    assert train(config, folder / 'work') == 0, end_of_output(folder / 'work')
    return folder / 'work'


def output(work_dir: Path) -> str:
    return (work_dir / 'output.txt').read_text()


def end_of_output(work_dir: Path) -> str:
    return output(work_dir)[-4000:]


def resumed_from(work_dir: Path) -> int:
    found = re.findall(r'resumed epoch: 0, iter: (\d+)', output(work_dir))
    return int(found[0]) if found else 0


def equal(a: Any, b: Any) -> bool:
    """The same to the bit, NaN included."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(bits(a), bits(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.flatten().view(torch.uint8)


def assert_same_end(work_dir: Path, undisturbed: Path) -> None:
    ends = [torch.load(w / 'iter_40.pth', weights_only=True) for w in (work_dir, undisturbed)]
    recall = ends[0]['state_dict']['decode_head.loss_decode.running_recall']
    assert recall.isfinite().any()
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert equal(*(end[part] for end in ends)), part
    losses = [end['message_hub']['log_scalars']['train/loss']._log_history for end in ends]
    assert len(losses[0]) == 40
    assert losses[0].tolist() == losses[1].tolist()


@pytest.mark.slow
@pytest.mark.parametrize('moment', KILLS)
def test_same_bits_after_a_kill(root, undisturbed, tmp_path, moment):
    config, work_dir = write_config(tmp_path / 'config.py', root), tmp_path / 'work'
    assert train(config, work_dir, kill=moment) == -signal.SIGKILL, end_of_output(work_dir)
    # Nothing half-written has the name of something whole.
    assert all(map(is_whole, work_dir.glob('*.pth')))
    assert train(config, work_dir, '--resume') == 0, end_of_output(work_dir)
    assert resumed_from(work_dir) == KILLS[moment].resumes_from
    assert_same_end(work_dir, undisturbed)
    # The best checkpoint is not lost either.
    assert best_checkpoint(work_dir) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        dict(dropout=0.5, hooks=SEED),
        dict(workers=2),
        dict(
            workers=2,
            dropout=0.5,
            augmentation=FLIP,
            hooks=SEED,
            sampler='ReplayedInfiniteSampler',
        ),
        dict(hooks=[dict(type='EMAHook')]),
        dict(hooks=[dict(type='EMAHook', update_buffers=True)]),
    ],
    ids=['dropout', 'workers', 'workers, dropout and augmentation', 'EMA', 'EMA of buffers'],
)
def test_same_bits_with_more_to_keep(root, tmp_path, options):
    undisturbed = run_through(root, tmp_path, **options)
    config, work_dir = tmp_path / 'config.py', tmp_path / 'killed'
    assert train(config, work_dir, kill='between two checkpoints') == -signal.SIGKILL
    assert train(config, work_dir, '--resume') == 0, end_of_output(work_dir)
    assert resumed_from(work_dir) == 20
    assert_same_end(work_dir, undisturbed)


@pytest.mark.slow
def test_without_the_hook_dropout_differs_after_a_resume(root, tmp_path):
    """Fails once mmengine keeps the state of the random numbers: the hook is then not needed."""
    undisturbed = run_through(root, tmp_path, dropout=0.5)
    config, work_dir = tmp_path / 'config.py', tmp_path / 'killed'
    assert train(config, work_dir, kill='between two checkpoints') == -signal.SIGKILL
    assert train(config, work_dir, '--resume') == 0, end_of_output(work_dir)
    with pytest.raises(AssertionError, match='state_dict'):
        assert_same_end(work_dir, undisturbed)


@pytest.mark.slow
def test_a_truncated_checkpoint_is_refused_by_name(root, undisturbed, tmp_path):
    """One that the pointer names, cut by other means than a kill."""
    config, work_dir = write_config(tmp_path / 'config.py', root), tmp_path / 'work'
    keep_all = ['--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=-1']
    short = [*keep_all, 'train_cfg.max_iters=30']
    assert train(config, work_dir, *short) == 0, end_of_output(work_dir)
    stubs.truncated(work_dir / 'iter_30.pth')
    stubs.truncated(work_dir / 'iter_20.pth')
    assert train(config, work_dir, '--resume', *keep_all) == 0, end_of_output(work_dir)
    assert resumed_from(work_dir) == 10
    for name in ('iter_30', 'iter_20'):
        assert f'{work_dir / name}.pth is missing, truncated or damaged' in output(work_dir)
    assert_same_end(work_dir, undisturbed)
