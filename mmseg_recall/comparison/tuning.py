"""Choose the learning rate of each loss on validation images, with the same budget for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config import as_list, is_classification, training_length, type_name
from ..literal_config import parse_config
from .describe import loss_label
from .plan import Plan, run_name
from .record import failure_of, read_record

Run = Callable[[list[Plan], Path], dict[str, str]]
"""Brings plans to records in a folder; returns what failed, by name."""


def tune(
    plans: Sequence[Plan], out: Path, learning_rates: Sequence[float], budget: int, run: Run
) -> list[Plan]:
    """Plans with the learning rate that suits each one's loss, found by successive halving.

    Every learning rate is trained from the start for the same few iterations (epochs, where the
    config counts those), the better half for as many more as the budget of the next round allows,
    until two are left, of which the better one is taken. Better is the mean IoU on the validation
    images, of a classifier the accuracy, with the first seed; schedules are shortened with the
    training.

    Args:
        plans: Of :func:`mmseg_recall.comparison.plan_runs`; seeds of one loss are tuned together.
        out: Folder of the comparison; trials are kept in ``OUT-trials`` and not run again.
        learning_rates: Two or more.
        budget: Training iterations, or epochs, of all trials of a loss together.
        run: :func:`run_all` or :func:`run_frozen`.

    Returns:
        The plans, each config with its ``optim_wrapper.optimizer.lr`` and ``tuning``: the learning
        rates, the budget and every trial.

    Raises:
        ValueError: A budget too small for one halving; a config without a length, a learning rate
            or validation images; a loss of which every trial failed.
    """
    lengths = rounds(len(set(learning_rates)), budget)
    groups: dict[tuple[str, str], list[Plan]] = {}
    for plan in plans:
        label = loss_label(parse_config(plan.config, plan.config_file))
        groups.setdefault((plan.config_file, label), []).append(plan)
    left = {key: sorted(set(learning_rates)) for key in groups}
    trials: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in groups}
    folder = out.with_name(f'{out.name}-trials')
    for count, steps in lengths:
        tried = {
            (key, lr): _trial(groups[key][0], key[1], lr, steps)
            for key in groups
            for lr in left[key]
        }
        run(list(tried.values()), folder)
        for key in groups:
            cfg = parse_config(groups[key][0].config, key[0])
            metric, (_, unit) = 'top1' if is_classification(cfg) else 'mIoU', training_length(cfg)
            scores = {
                lr: _score(folder / f'{tried[key, lr].name}.json', metric) for lr in left[key]
            }
            trials[key] += [{'lr': lr, unit: steps, metric: scores[lr]} for lr in left[key]]
            if all(score is None for score in scores.values()):
                record = read_record(folder / f'{tried[key, left[key][0]].name}.json')
                raise ValueError(f'{key[0]}, {key[1]}: every trial failed; {failure_of(record)}')
            best = sorted(scores, key=lambda lr: scores[lr] or -math.inf, reverse=True)
            left[key] = best[: max(1, math.ceil(count / 2) if count > 2 else 1)]
    protocol = {'learning_rates': sorted(set(learning_rates)), 'budget': budget}
    tuned = {}
    for key, members in groups.items():
        for plan in members:
            cfg = parse_config(plan.config, plan.config_file)
            cfg.optim_wrapper.optimizer.lr = left[key][0]
            cfg.tuning = {**protocol, 'trials': trials[key]}
            tuned[plan] = plan._replace(config=cfg.dump())
    return [tuned[plan] for plan in plans]


def rounds(candidates: int, budget: int) -> list[tuple[int, int]]:
    """How many candidates each round has, and for how many iterations (epochs) each is trained.

    Each round has the same share of the budget.

    Raises:
        ValueError: Fewer than two candidates; a budget that gives one of the first round less than
            one.

    Example:
        >>> rounds(5, budget=900)
        [(5, 60), (3, 100), (2, 150)]
    """
    if candidates < 2:
        raise ValueError('tuning chooses between learning rates: give two or more')
    numbers = [candidates]
    while numbers[-1] > 2:
        numbers.append(math.ceil(numbers[-1] / 2))
    if budget < candidates * len(numbers):
        raise ValueError(
            f'a budget of {budget} is too small for one halving of {candidates} learning rates: '
            f'{len(numbers)} rounds of them need {candidates * len(numbers)} iterations or epochs '
            'at least, and more to say anything'
        )
    return [(number, budget // len(numbers) // number) for number in numbers]


def _trial(plan: Plan, label: str, lr: float, steps: int) -> Plan:
    """A short training with one learning rate, tested on the validation images."""
    cfg = parse_config(plan.config, plan.config_file)
    if 'lr' not in (cfg.get('optim_wrapper') or {}).get('optimizer', {}):
        raise ValueError(f'{plan.config_file}: optim_wrapper.optimizer has no lr to tune')
    if not cfg.get('val_dataloader'):
        raise ValueError(
            f'{plan.config_file}: tuning chooses on validation images, and there is no '
            'val_dataloader'
        )
    cfg.optim_wrapper.optimizer.lr = lr
    set_length(cfg, steps, plan.config_file)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    name = run_name(Path(plan.config_file).stem, f'{label} lr={lr:g} {steps}', plan.seed)
    return plan._replace(name=name, config=cfg.dump(), checkpoint='last')


def set_length(cfg: Config, steps: int, path: str) -> None:
    """Train for so many iterations, or epochs where the config counts those.

    Schedules that ended with the training end with it again, and re-weighting that was deferred to
    a share of it begins at the same share.

    Raises:
        ValueError: The config has no length.
    """
    length, unit = training_length(cfg)
    if not length:
        raise ValueError(
            f'{path}: tuning shortens trainings by train_cfg.max_iters or max_epochs, and neither '
            'is set'
        )
    cfg.train_cfg['max_iters' if unit == 'iterations' else 'max_epochs'] = steps
    for scheduler in as_list(cfg.get('param_scheduler')):
        for name in ('end', 'T_max'):
            if scheduler.get(name) == length:
                scheduler[name] = steps
    for hook in as_list(cfg.get('custom_hooks')):
        if type_name(hook) == 'DeferredReweightingHook':
            hook['begin'] = hook['begin'] * steps // length


def _score(path: Path, metric: str) -> float | None:
    """A metric of a trial; None if it failed."""
    record = read_record(path)
    return record['metrics'][metric] if record['status'] == 'complete' else None
