"""Build each run of a comparison as its script will, so that what cannot start is known at once."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import RUNNERS  # falls back to mmengine's, where mmpretrain's scripts look
from mmseg.structures import SegDataSample

from ..models import FusedTail, rewrite
from .identity import identity
from .plan import Plan

TRY_ALL = 'import sys; from mmseg_recall.comparison.trial import try_all; try_all(*sys.argv[1:])'


def refuse_what_cannot_start(plans: list[Plan], configs: dict[str, Config]) -> None:
    """Build the model, the data loaders, the optimiser and the evaluator of each run.

    In a process of its own, and once for all seeds of a loss. A decode head is given logits and
    labels of a few pixels, too.

    Raises:
        ValueError: Some cannot be built; each with its reason.
    """
    firsts = one_of_each_loss(plans, configs)
    if not firsts:
        return
    with tempfile.TemporaryDirectory() as folder:
        for plan in firsts:
            Path(folder, f'{plan.name}.py').write_text(plan.config)
        command = [sys.executable, '-c', TRY_ALL, folder]
        done = subprocess.run(command, capture_output=True, text=True, errors='replace')
        result = Path(folder, 'errors.json')
        if not result.is_file():
            tail = '\n'.join(f'{done.stdout}{done.stderr}'.splitlines()[-20:])
            raise ValueError(f'The runs cannot be built:\n{tail}')
        errors = json.loads(result.read_text())
    if errors:
        listed = ''.join(f'\n  {name}: {error}' for name, error in sorted(errors.items()))
        raise ValueError(
            f'{len(errors)} of {len(firsts)} configs cannot be built, and nothing was started:'
            f'{listed}'
        )


def one_of_each_loss(plans: list[Plan], configs: dict[str, Config]) -> list[Plan]:
    """The first of the plans that differ in the seed only."""
    firsts: dict[tuple[str, str], Plan] = {}
    for plan in plans:
        one = identity(configs[plan.name])
        firsts.setdefault((one.key, one.loss_key), plan)
    return list(firsts.values())


def try_all(folder: str) -> None:
    """Build each config of a folder; write what went wrong by name to its ``errors.json``."""
    errors = {}
    for path in sorted(Path(folder).glob('*.py')):
        try:
            _build(Config.fromfile(path), Path(folder, 'work_dir'))
        except Exception as error:  # whatever a user's own module raises
            errors[path.stem] = f'{type(error).__name__}: {error}'
    Path(folder, 'errors.json').write_text(json.dumps(errors))


def _build(cfg: Config, work_dir: Path) -> None:
    load_from = str(cfg.get('load_from') or '')
    if load_from and '://' not in load_from and not Path(load_from).is_file():
        raise FileNotFoundError(f'load_from={load_from} does not exist')
    if cfg.get('train_cfg'):
        cfg = rewrite(cfg)  # a runner is built without class counts, too, but does not train
    cfg.work_dir = str(work_dir)
    # Of a tracking service: a trial is no experiment.
    cfg.visualizer, cfg.experiment_name = None, Path(cfg.filename).stem
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    loaders = {name: cfg.get(f'{name}_dataloader') for name in ('train', 'val', 'test')}
    if cfg.get('train_cfg'):
        runner.build_optim_wrapper(cfg.optim_wrapper)
    for name, loader in loaders.items():
        if loader and cfg.get(f'{name}_cfg'):
            runner.build_dataloader(loader)
    runner.build_evaluator(cfg.test_evaluator)
    for head in runner.model.modules():
        if isinstance(head, BaseDecodeHead) and _takes_logits(head):
            _try_loss(head)


def _takes_logits(head: BaseDecodeHead) -> bool:
    """Whether the losses of a head score one map of logits, as the losses of most do."""
    definers = [cls for cls in type(head).__mro__ if 'loss_by_feat' in vars(cls)]
    return next(cls for cls in definers if cls is not FusedTail) is BaseDecodeHead


def _try_loss(head: Any) -> None:
    logits = torch.zeros(2, head.out_channels, 8, 8, requires_grad=True)
    label = PixelData(data=torch.zeros(1, 16, 16, dtype=torch.long))
    losses = head.loss_by_feat(logits, [SegDataSample(gt_sem_seg=label)] * 2)
    sum(value.sum() for name, value in losses.items() if 'loss' in name).backward()
