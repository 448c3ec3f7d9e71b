"""Runs that differ in loss and seed only, and their means and spreads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

import numpy as np

from ..comparison.identity import differences
from .load import Run

BASELINE = 'CE'
DIGITS = 1
"""Decimals of a mean over seeds, in per cent; best and second are judged as printed."""
MINORITY_IOU = 80.0
"""A class is a minority class when its IoU under the baseline is below this (Tables 2 and 3)."""


@dataclass(frozen=True)
class Value:
    """Mean over seeds and sample standard deviation (NaN for one seed), and their number."""

    mean: float
    std: float
    n: int


def value_of(values: list[float]) -> Value:
    """Mean and spread of the values that are not NaN.

    Example:
        >>> value_of([1.0, 3.0])
        Value(mean=2.0, std=1.4142135623730951, n=2)
    """
    known = [v for v in values if not np.isnan(v)]
    mean = float(np.mean(known)) if known else float('nan')
    std = float(np.std(known, ddof=1)) if len(known) > 1 else float('nan')
    return Value(mean, std, len(known))


@dataclass(frozen=True)
class Loss:
    """All runs of one loss, one a seed."""

    label: str
    runs: tuple[Run, ...]

    def metric(self, name: str) -> Value:
        return value_of([run.metrics.get(name, float('nan')) for run in self.runs])

    def per_class(self, name: str, c: int) -> Value:
        return value_of([run.per_class[name][c] for run in self.runs if run.classes])

    def class_means(self, name: str) -> np.ndarray:
        """(C,) per cent, mean over seeds."""
        number = max(len(run.classes) for run in self.runs)
        return np.array([self.per_class(name, c).mean for c in range(number)])

    def mean_over(self, name: str, classes: list[int]) -> Value:
        """Of the mean over some classes in each run."""
        if not classes:
            return value_of([])
        rows = [run.per_class[name][classes] for run in self.runs if run.classes]
        return value_of([float(np.nanmean(r)) if not np.isnan(r).all() else np.nan for r in rows])


@dataclass(frozen=True)
class Comparison:
    """Runs of one model, data set and schedule.

    Attributes:
        title: In words.
        losses: The baseline first, then by label.
        number: Its place on the page, from 1.
    """

    title: str
    losses: tuple[Loss, ...]
    number: int = 1

    @cached_property
    def runs(self) -> list[Run]:
        return [run for loss in self.losses for run in loss.runs]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return max((run.classes for run in self.runs), key=len)

    @property
    def setup(self) -> dict:
        return self.runs[0].setup

    @property
    def classifies(self) -> bool:
        """Whether its models are classifiers, of mmpretrain."""
        # Records made before there was a choice do not say.
        return self.setup.get('task') == 'classification'

    def loss(self, label: str) -> Loss | None:
        return next((loss for loss in self.losses if loss.label == label), None)

    @property
    def baseline(self) -> Loss | None:
        return self.loss(BASELINE)

    @cached_property
    def minority(self) -> list[int]:
        """Indices of the classes whose IoU under the baseline is below 80; [] without one."""
        if self.baseline is None:
            return []
        return [c for c, v in enumerate(self.baseline.class_means('IoU')) if v < MINORITY_IOU]

    @cached_property
    def share(self) -> np.ndarray | None:
        """(C,) per cent of the pixels, of the training set where known; None if unknown."""
        for run in sorted(self.runs, key=lambda run: run.pixels_of != 'training'):
            if run.pixels is not None and len(run.pixels) == len(self.classes):
                return 100 * run.pixels / run.pixels.sum()
        return None

    @cached_property
    def share_of(self) -> str:
        return 'training' if any(r.pixels_of == 'training' for r in self.runs) else 'test'


def compare(runs: list[Run]) -> list[Comparison]:
    """Group runs by everything but loss and seed; the largest comparison first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setup['key'], []).append(run)
    comparisons = []
    for members in groups.values():
        labels = sorted({run.loss for run in members}, key=lambda v: (v != BASELINE, v.lower()))
        losses = tuple(
            Loss(label, tuple(run for run in members if run.loss == label)) for label in labels
        )
        setup = members[0].setup
        # A data set class serves several data sets: the mini scenes are read as SYNTHIA.
        named = setup['data_root'].lower() in ('', setup['dataset'].lower())
        data = setup['dataset'] if named else f'{setup["dataset"]} ({setup["data_root"]})'
        title = f'{data}, {setup["model"]}, {setup["schedule"]}'
        comparisons.append(Comparison(title, losses))
    comparisons = _told_apart(comparisons, _configs_of)
    comparisons = _told_apart(comparisons, _differences_of)
    comparisons.sort(key=lambda c: (-len(c.runs), c.title, c.setup['key']))
    return [replace(c, number=number) for number, c in enumerate(comparisons, start=1)]


def _told_apart(
    comparisons: list[Comparison], words: Callable[[list[Comparison]], list[str]]
) -> list[Comparison]:
    """Add to the titles that several comparisons have what ``words`` tells of each."""
    by_title: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_title.setdefault(comparison.title, []).append(comparison)
    told = []
    for title, alike in by_title.items():
        texts = words(alike) if len(alike) > 1 else ['']
        for comparison, text in zip(alike, texts, strict=True):
            told.append(replace(comparison, title=f'{title} ({text})') if text else comparison)
    return told


def _configs_of(comparisons: list[Comparison]) -> list[str]:
    """The names of their configs; none where these are the same."""
    names = [
        ', '.join(sorted({PurePath(run.config_file).stem for run in comparison.runs}))
        for comparison in comparisons
    ]
    return names if len(set(names)) > 1 else [''] * len(names)


def _differences_of(comparisons: list[Comparison]) -> list[str]:
    """What their configs, checkpoints or test sets differ in."""
    runs = [comparison.runs[0] for comparison in comparisons]
    return differences([{**run.config.setup, **run.compared} for run in runs])


def ranks(losses: tuple[Loss, ...], value: Callable[[Loss], float]) -> dict[str, str]:
    """'best' and 'second' by label, of what is largest; nothing where all are equal.

    Example:
        >>> ranks((Loss('a', ()), Loss('b', ())), lambda loss: {'a': 1.0, 'b': 2.0}[loss.label])
        {'b': 'best', 'a': 'second'}
    """
    values = {loss.label: round(value(loss), DIGITS) for loss in losses}
    levels = sorted({v for v in values.values() if not np.isnan(v)}, reverse=True)
    if len(levels) < 2:
        return {}
    names = dict(zip(levels[:2], ('best', 'second'), strict=False))
    found = {label: names[v] for label, v in values.items() if v in names}
    return dict(sorted(found.items(), key=lambda item: item[1]))
