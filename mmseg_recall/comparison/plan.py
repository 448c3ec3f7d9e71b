"""Which runs a comparison has, and the complete config of each."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmseg.registry import MODELS

from ..config import as_list, import_with, is_classification, name_types, type_name
from ..stack import check_mmpretrain
from .describe import loss_label
from .identity import digest

CHECKPOINT_RULES = ('last', 'best')
MAX_NAME = 150
# Their results are what a record is made of.
SEGMENTATION_METRICS = ('IoUMetric', 'PerClassIoUMetric')
CLASSIFICATION_METRICS = ('ShotAccuracy',)


class Plan(NamedTuple):
    """One run: a config trained with one seed.

    Attributes:
        name: Unique in the comparison; names the work directory and the record.
        config_file: The config as the user named it.
        config: The complete config of the run, as Python text.
        seed: Of the run.
        checkpoint: Which checkpoint is tested: 'last' or 'best' (on the validation set).
    """

    name: str
    config_file: str
    config: str
    seed: int
    checkpoint: str


def plan_runs(
    configs: Sequence[str],
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    *,
    losses_dir: Path,
    checkpoint: str = 'last',
    cfg_options: dict[str, Any] | None = None,
    frozen: int = 0,
) -> list[Plan]:
    """Every config with every loss and every seed.

    Args:
        configs: Paths of complete configs.
        losses: What to put in the place of each config's loss: the name of a base config in
            ``losses_dir`` ('recall'), the path of another such file, or the type of a registered
            loss ('DiceLoss'). Of none, each config keeps its own.
        seeds: Seeds of ``randomness``.
        losses_dir: Folder of the loss base configs.
        checkpoint: 'last' or 'best', the same for all runs.
        cfg_options: Overrides of every config, as ``--cfg-options`` of mmseg. ``{seed}`` in
            ``load_from`` is the seed of the run.
        frozen: How many views of each training image the heads are trained on, by
            :func:`mmseg_recall.comparison.run_frozen`; 0 for runs that train the whole model.

    Returns:
        One plan a run; all losses of a seed before the next seed, so that a comparison that is
        cut short is still one of all losses.

    Raises:
        FileNotFoundError: No such config.
        ImportError: A config is one of mmpretrain, which is not installed, or imports what cannot
            be imported.
        ValueError: An unknown loss, or losses for configs of mmpretrain, which name their own
            method; two runs with the same name; a config that is not tested with IoUMetric (of
            mmpretrain: ShotAccuracy) or keeps no checkpoint by the rule.
    """
    if checkpoint not in CHECKPOINT_RULES:
        raise ValueError(f'checkpoint must be one of {CHECKPOINT_RULES}, got {checkpoint!r}')
    if frozen < 0:
        raise ValueError(f'frozen features need a view or more of each image, got {frozen}')
    plans: list[Plan] = []
    for seed in seeds:
        for path in configs:
            for loss in losses or ['']:
                cfg = _read(path)
                if loss:
                    _set_loss(cfg, loss, losses_dir)
                cfg.merge_from_dict(cfg_options or {})
                if frozen:
                    cfg.frozen_features = dict(views=frozen)
                _prepare(cfg, seed, checkpoint, path)
                name = run_name(Path(path).stem, loss_label(cfg), seed)
                plans.append(Plan(name, str(path), cfg.dump(), seed, checkpoint))
    _check_unique(plans)
    return plans


def run_name(config: str, label: str, seed: int) -> str:
    """Name of a run, of letters that every file system takes, and not too many of them.

    Example:
        >>> run_name('fcn', 'SoftmaxFocal gamma=2.0', 0)
        'fcn_softmaxfocal-gamma-2.0_seed0'
    """
    label = re.sub(r'[^A-Za-z0-9.]+', '-', label).strip('-').lower()
    name = f'{config}_{label}'
    if len(os.fsencode(name)) > MAX_NAME:
        cut = os.fsencode(name)[:MAX_NAME].decode(errors='ignore')
        name = f'{cut}-{digest(name)[:8]}'
    return f'{name}_seed{seed}'


def _read(path: str) -> Config:
    try:
        cfg = Config.fromfile(path)
        if is_classification(cfg):
            check_mmpretrain()
    except ImportError as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        raise ImportError(f'{path}: {first}') from error
    # Of classes no dump can be read again.
    return name_types(cfg)


def _set_loss(cfg: Config, loss: str, losses_dir: Path) -> None:
    if is_classification(cfg):
        raise ValueError(
            f'{cfg.filename} is a config of mmpretrain, which names its own method: give the '
            'configs to compare, without losses'
        )
    known = losses_dir / f'{loss}.py'
    if known.is_file() or loss.endswith('.py'):
        base = Config.fromfile(known if known.is_file() else loss)
        new_losses = as_list(base.get('imbalance_loss', base.get('loss_decode')))
        if not new_losses:
            raise ValueError(f'{loss} defines no imbalance_loss, so it is no loss base config')
        import_with(cfg, *as_list(base.get('custom_imports', {}).get('imports')))
    elif MODELS.get(loss) is not None:
        new_losses = [dict(type=loss)]
    else:
        names = ', '.join(sorted(path.stem for path in losses_dir.glob('*.py')))
        raise ValueError(
            f'No loss {loss!r}: it is neither a base config in {losses_dir} ({names}), nor a .py '
            'file, nor the type of a loss registered in mmseg'
        )
    # Replaced, not merged: the options of another loss must not stay.
    cfg.imbalance_loss = new_losses if len(new_losses) > 1 else new_losses[0]


def _prepare(cfg: Config, seed: int, checkpoint: str, path: str) -> None:
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    if cfg.get('load_from'):
        cfg.load_from = str(cfg.load_from).replace('{seed}', str(seed))
    keep = cfg.get('default_hooks', {}).get('checkpoint')
    if not keep:
        raise ValueError(f'{path}: default_hooks has no checkpoint hook, so a run has no result')
    if checkpoint == 'best' and not keep.get('save_best'):
        raise ValueError(
            f"{path}: the checkpoint rule is 'best', but default_hooks.checkpoint.save_best is not "
            "set. Set it to 'mIoU', or use the rule 'last'"
        )
    if keep.get('max_keep_ckpts', -1) == 1:
        # mmengine removes the old checkpoint before it writes the new one: a run killed in
        # between would have none.
        keep.max_keep_ckpts = 2
    # The same object may serve as val_evaluator.
    cfg.test_evaluator = copy.deepcopy(cfg.test_evaluator)
    metric = areas_metric(cfg, path)
    if not is_classification(cfg):
        metric['type'] = 'PerClassIoUMetric'
        import_with(cfg, 'mmseg_recall')
        hooks = cfg.get('custom_hooks') or []
        if not any(type_name(hook) == 'ClassWeightHook' for hook in hooks):
            cfg.custom_hooks = [*hooks, dict(type='ClassWeightHook')]


def areas_metric(cfg: Config, path: str = 'the config') -> dict[str, Any]:
    """The test evaluator whose areas a record holds (changing it changes the config)."""
    known = CLASSIFICATION_METRICS if is_classification(cfg) else SEGMENTATION_METRICS
    for evaluator in as_list(cfg.test_evaluator):
        if type_name(evaluator) in known:
            return evaluator
    raise ValueError(f'{path}: test_evaluator has no {known[0]}, whose areas the comparison needs')


def _check_unique(plans: list[Plan]) -> None:
    seen: dict[str, Plan] = {}
    for plan in plans:
        if plan.name in seen:
            raise ValueError(
                f'Two runs would have the name {plan.name}: of {seen[plan.name].config_file} and '
                f'of {plan.config_file}. Rename one config, or compare them in two folders'
            )
        seen[plan.name] = plan
