"""Runs that differ in loss and seed only, their means, and how sure their differences are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import PurePath

import numpy as np

from .. import statistics
from ..comparison.identity import differences
from ..config import Component, as_list
from ..evaluation import areas as A
from ..statistics import Estimate
from .load import Run


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, the classes, of what can be scored; NaN where nothing can."""
    known = ~np.isnan(values)
    with np.errstate(invalid='ignore'):
        return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def _mean_of(of: Callable[[A.Areas], np.ndarray], areas: A.Areas) -> np.ndarray:
    return _known_mean(of(areas))


Metric = str | tuple[str, int | tuple[int, ...]]
"""A mean by name ('mIoU'), a class's value ('IoU' of class 3: ('IoU', 3)), or several classes'."""
BASELINE = 'CE'
BASELINES = BASELINE, 'BinaryCE'
"""Cross-entropy by softmax, or else that of single channels."""
MEANS: dict[str, Callable[[A.Areas], np.ndarray]] = {
    **{f'm{name}': partial(_mean_of, of) for name, of in A.PER_CLASS.items()},
    'aAcc': lambda areas: areas.intersect.sum(axis=-1) / areas.label.sum(axis=-1),
}
DIGITS = 1
"""Decimals of a mean over seeds, in per cent; best and second are judged as printed."""
MINORITY_IOU = 80.0
"""A class is a minority class when its IoU under the baseline is below this (Tables 2 and 3)."""


def _over_seeds(values: list[float]) -> Estimate:
    return statistics.estimate(np.array(values))


@dataclass(frozen=True)
class Loss:
    """All runs of one loss, one a seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def components(self) -> list[Component]:
        """What its configs put into the heads; [] of a config that keeps its own losses."""
        given = self.runs[0].config.loss
        return as_list(given.get('imbalance_loss', given.get('loss_decode')))

    @property
    def one_channel(self) -> float | None:
        """The threshold of a head of one channel; None of other heads."""
        given = self.runs[0].config.loss
        return given.get('model.decode_head.threshold')

    def metric(self, name: str) -> Estimate:
        return _over_seeds([run.metrics.get(name, float('nan')) for run in self.runs])

    def per_class(self, name: str, c: int) -> Estimate:
        return _over_seeds([run.per_class[name][c] for run in self.runs if run.classes])

    def class_means(self, name: str) -> np.ndarray:
        """(C,) per cent, mean over seeds."""
        number = max(len(run.classes) for run in self.runs)
        return np.array([self.per_class(name, c).mean for c in range(number)])

    @property
    def seconds(self) -> float:
        """Per iteration, mean over seeds; NaN if unknown."""
        known = [run.seconds for run in self.runs if run.seconds is not None]
        return float(np.mean(known)) if known else float('nan')

    @property
    def memory(self) -> float:
        """Peak MiB of all seeds; NaN if unknown."""
        return max((run.memory for run in self.runs if run.memory), default=float('nan'))


@dataclass(frozen=True)
class Comparison:
    """Runs of one model, data set and schedule.

    Attributes:
        title: In words.
        losses: The baseline first, then by label.
        number: Its place on the page, from 1.
        groups: The group of each test image by its stem, where images are not independent.
    """

    title: str
    losses: tuple[Loss, ...]
    number: int = 1
    groups: Mapping[str, str] | None = None

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

    @cached_property
    def why_no_images(self) -> str:
        """Why intervals do not cover other images, in words; '' where they do."""
        known = [run for run in self.runs if run.images is not None]
        if not known:
            return 'the records hold no areas of single images'
        for run in self.runs:
            if run.images is None:
                return f'{run.name} holds no areas of single images'
            first = known[0].images
            alike = first is not None and np.array_equal(run.images.label, first.label)
            if run.image_names != known[0].image_names or not alike:
                return f'{run.name} and {known[0].name} were tested on different images'
        names = known[0].image_names
        if len({(self.groups or {}).get(name, name) for name in names}) < 2:
            return 'one test image' if len(names) == 1 else 'all test images are one group'
        return ''

    @cached_property
    def group_of(self) -> list[str] | None:
        """The group of each test image; None where :attr:`why_no_images` says why."""
        if self.why_no_images:
            return None
        return [(self.groups or {}).get(name, name) for name in self.runs[0].image_names]

    @property
    def unseen(self) -> list[str]:
        """The classes that no test image has."""
        (areas, *_) = [run.per_class['Acc'] for run in self.runs if run.classes] or [np.array([])]
        return [name for name, v in zip(self.classes, areas, strict=False) if np.isnan(v)]

    @cached_property
    def _resampled(self) -> dict[tuple[str, int | None], A.Areas]:
        """Totals of each run on the same resamples of the images, (resamples, C)."""
        if self.group_of is None:
            return {}
        weights = statistics.resamples(self.group_of).astype(float)
        return {
            (run.loss, run.seed): A.Areas(*(weights @ areas for areas in run.images))
            for run in self.runs
            if run.images is not None
        }

    def _values(self, loss: Loss, metric: Metric) -> dict[int | None, float]:
        if isinstance(metric, str):
            return {run.seed: run.metrics.get(metric, np.nan) for run in loss.runs}
        name, classes = metric[0], np.atleast_1d(metric[1]).astype(int)
        known = (run for run in loss.runs if run.classes)
        return {run.seed: float(_known_mean(run.per_class[name][classes])) for run in known}

    def _on_resamples(
        self, loss: Loss, metric: Metric, seeds: Sequence[int | None]
    ) -> np.ndarray | None:
        """(resamples, S); None where the areas do not give the metric."""
        if not self._resampled or (isinstance(metric, str) and metric not in MEANS):
            return None
        drawn = [self._resampled[loss.label, seed] for seed in seeds]
        if isinstance(metric, str):
            values = [MEANS[metric](areas) for areas in drawn]
        else:
            name, classes = metric[0], np.atleast_1d(metric[1]).astype(int)
            values = [_known_mean(A.PER_CLASS[name](areas)[:, classes]) for areas in drawn]
        return 100 * np.stack(values, axis=1)

    def estimate(self, loss: Loss, metric: Metric) -> Estimate:
        """A mean over the seeds of a loss."""
        seeds = list(self._values(loss, metric))
        values = np.array(list(self._values(loss, metric).values()))
        resampled = self._on_resamples(loss, metric, seeds)
        return statistics.estimate(values, resampled, len(set(self.group_of or ())))

    def difference(self, first: Loss, second: Loss, metric: Metric) -> Estimate:
        """How far ``first`` is above ``second``, over the seeds that both have."""
        ours, theirs = self._values(first, metric), self._values(second, metric)
        seeds = [seed for seed in ours if seed is not None and seed in theirs]
        if not seeds:
            # Nothing pairs them, so nothing can be said of chance.
            above, below = (float(np.mean(list(values.values()))) for values in (ours, theirs))
            return Estimate(above - below, 1)
        values = np.array([ours[seed] - theirs[seed] for seed in seeds])
        a, b = (self._on_resamples(loss, metric, seeds) for loss in (first, second))
        resampled = None if a is None or b is None else a - b
        return statistics.estimate(values, resampled, len(set(self.group_of or ())))

    @property
    def basis(self) -> str:
        """What the intervals of this comparison cover, in words."""
        seeds = max(len(loss.runs) for loss in self.losses)
        if self.group_of is None:
            images = f'{self.why_no_images}, so they do not cover other images'
            if seeds < 2:
                return f'One seed, and {images}: nothing can be told from chance.'
            return f'Intervals of 95% are over seeds alone: {images}.'
        groups, number = len(set(self.group_of)), len(self.group_of)
        what = f'{number} images' if groups == number else f'{number} images in {groups} groups'
        if seeds < 2:
            return f'One seed: intervals of 95% are over the {what} alone and cover no other seed.'
        return f'Intervals of 95% are over seeds and over the {what}.'

    def loss(self, label: str) -> Loss | None:
        return next((loss for loss in self.losses if loss.label == label), None)

    @property
    def baseline(self) -> Loss | None:
        return next(filter(None, map(self.loss, BASELINES)), None)

    @cached_property
    def minority(self) -> list[int]:
        """Indices of the classes whose IoU under the baseline is below 80; [] without one."""
        if self.baseline is None:
            return []
        return [c for c, v in enumerate(self.baseline.class_means('IoU')) if v < MINORITY_IOU]

    @property
    def minority_group(self) -> list[int]:
        """Those, where their mean is neither a class's own value nor the mean over all."""
        return self.minority if 1 < len(self.minority) < len(self.classes) else []

    @cached_property
    def share(self) -> np.ndarray | None:
        """(C,) per cent of the pixels, of the training set where known; None if unknown."""
        for run in sorted(self.runs, key=lambda run: run.pixels_of != 'training'):
            if run.pixels is not None and len(run.pixels) == len(self.classes):
                return 100 * run.pixels / run.pixels.sum()
        return None

    @property
    def rarest_first(self) -> list[int]:
        """Indices of the classes; in their own order where the shares are not known."""
        share = np.zeros(len(self.classes)) if self.share is None else self.share
        return np.argsort(share, kind='stable').tolist()

    @cached_property
    def share_of(self) -> str:
        return 'training' if any(r.pixels_of == 'training' for r in self.runs) else 'test'


def compare(runs: list[Run], groups: Mapping[str, str] | None = None) -> list[Comparison]:
    """Group runs by everything but loss and seed; the largest comparison first."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.setup['key'], []).append(run)
    comparisons = []
    for members in alike.values():
        labels = sorted(
            {run.loss for run in members}, key=lambda v: (v != BASELINE, v != 'BinaryCE', v.lower())
        )
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
    comparisons = _told_apart(
        comparisons,
        lambda alike: differences(
            [{**c.runs[0].config.setup, **c.runs[0].compared} for c in alike]
        ),
    )
    comparisons.sort(key=lambda c: (-len(c.runs), c.title, c.setup['key']))
    return [
        replace(c, number=number, groups=groups) for number, c in enumerate(comparisons, start=1)
    ]


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


def ranks(means: dict[str, float]) -> dict[str, str]:
    """'best' and 'second' by label, of what is largest; nothing where all are equal.

    Example:
        >>> ranks({'a': 1.0, 'b': 2.0})
        {'b': 'best', 'a': 'second'}
    """
    values = {label: round(mean, DIGITS) for label, mean in means.items()}
    levels = sorted({v for v in values.values() if not np.isnan(v)}, reverse=True)
    if len(levels) < 2:
        return {}
    names = dict(zip(levels[:2], ('best', 'second'), strict=False))
    found = {label: names[v] for label, v in values.items() if v in names}
    return dict(sorted(found.items(), key=lambda item: item[1]))
