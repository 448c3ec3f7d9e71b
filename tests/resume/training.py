"""A training of seconds through tools/train.py, and the moments at which it can be killed."""

from __future__ import annotations

import builtins
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.fileio import LocalBackend
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, ValLoop

from tests.tools.run import ROOT

PRELOADED = ['mmseg_recall', 'mmseg.apis', 'tests.resume.training']

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_recall'], allow_failed_imports=False)
randomness = dict(seed=7)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(16, 24), seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, num_stages=2,
        out_indices=(0, 1), strides=(1, 2), dilations=(1, 1), norm_cfg=dict(type='BN')),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=1, channels=8, num_convs=1, num_classes=11,
        dropout_ratio={dropout}, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='RecallLoss', momentum=0.9)),
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-2))
param_scheduler = [dict(type='PolyLR', power=0.9, begin=0, end=40, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40, val_interval=20)
val_cfg = dict(type='ValLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=10, max_keep_ckpts=1, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [dict(type='ClassWeightHook'), *{hooks}]
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
data = dict(type='CamVidDataset', data_root='{root}')
train_dataloader = dict(
    batch_size=2, num_workers={workers}, persistent_workers={workers} > 0,
    sampler=dict(type='{sampler}', shuffle=True),
    dataset=dict(
        **data, data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *{augmentation},
            dict(type='PackSegInputs')]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **data, data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')]))
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
"""

FLIP = [dict(type='RandomFlip', prob=0.5)]
SEED = [dict(type='SeedIterationsHook')]


def write_config(
    path: Path,
    root: Path,
    *,
    workers: int = 0,
    dropout: float = 0.0,
    augmentation: list[dict] | None = None,
    hooks: list[dict] | None = None,
    sampler: str = 'InfiniteSampler',
) -> Path:
    """Write the config of 40 iterations on the tree of ``tests.datasets.stubs`` at ``root``."""
    values = dict(root=root, workers=workers, dropout=dropout, sampler=sampler)
    path.write_text(CONFIG.format(**values, augmentation=augmentation or [], hooks=hooks or []))
    return path


def train(config: Path, work_dir: Path, *options: str, kill: str | None = None) -> int:
    """Run tools/train.py as a user does, killed at a moment of KILLS if one is named.

    In a process of its own, forked from one that has done nothing but import. Returns its exit
    status; its output is in ``output.txt``.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOADED)
    work_dir.mkdir(exist_ok=True)
    arguments = [str(config), '--work-dir', str(work_dir), *options]
    process = context.Process(target=_train, args=(arguments, work_dir / 'output.txt', kill))
    process.start()
    process.join()
    return process.exitcode


def _train(arguments: list[str], log: Path, kill: str | None) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if kill is not None:
        KILLS[kill].arm()
    sys.argv = ['train.py', *arguments]
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')


class Kill(NamedTuple):
    """A moment to die at, as by ``kill -9``: the n-th of the calls of a function that count."""

    owner: Any
    function: str
    counts: Callable[..., bool]
    resumes_from: int
    """Iteration of the checkpoint that a run killed then goes on from."""
    call: int = 1
    before: Callable[..., Any] = lambda *arguments: None
    """What of the call is still done."""

    def arm(self) -> None:
        stock, calls = getattr(self.owner, self.function), 0

        def until_killed(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += self.counts(*arguments)
            if calls == self.call:
                self.before(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return stock(*arguments, **options)

        setattr(self.owner, self.function, until_killed)


def writes(name: str) -> Callable[..., bool]:
    """Calls of LocalBackend.put that write a file whose name begins so."""
    return lambda backend, data, path: Path(path).name.startswith(name)


def write_half(backend: LocalBackend, data: bytes, path: str) -> None:
    Path(path).write_bytes(data[: len(data) // 2])


def is_pointer(path: object, *mode: str) -> bool:
    return str(path).endswith('last_checkpoint') and mode == ('w',)


KILLS = {
    'between two checkpoints': Kill(
        IterBasedTrainLoop, 'run_iter', lambda loop, data: loop.iter == 25, 20
    ),
    'between backward and update': Kill(OptimWrapper, 'step', lambda *_, **__: True, 20, call=27),
    'during validation': Kill(ValLoop, 'run_iter', lambda *_: True, 20),
    'half of the first checkpoint': Kill(LocalBackend, 'put', writes('iter_10'), 0, 1, write_half),
    'half of a checkpoint': Kill(LocalBackend, 'put', writes('iter_30'), 20, 1, write_half),
    'half of the last checkpoint': Kill(LocalBackend, 'put', writes('iter_40'), 30, 1, write_half),
    'half of the best checkpoint': Kill(LocalBackend, 'put', writes('best_'), 20, 1, write_half),
    # The one of the iteration in which save_best has kept another.
    'half of a checkpoint, again': Kill(LocalBackend, 'put', writes('iter_20'), 20, 2, write_half),
    'before a checkpoint is named': Kill(builtins, 'open', is_pointer, 20, 4),
    'in the middle of naming it': Kill(
        builtins, 'open', is_pointer, 30, 4, lambda path, *_: Path(path).write_text('')
    ),
    'before the one before is removed': Kill(
        LocalBackend, 'remove', lambda backend, path: 'iter_20' in path, 30
    ),
}
