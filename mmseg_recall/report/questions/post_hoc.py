"""Post-hoc logit adjustment of the baseline: the curve that every trained loss has to beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ...diagnosis.trained import best_of_grid
from ...statistics import Estimate, estimate
from ..blocks import INTERVALS, MAIN, OVERALL, Cell, Section, Table, estimated, section
from ..judge import interval_text
from ..load import Run
from ..summary import Comparison, Loss

ORDER = 20
Curve = dict[float, dict[str, Estimate]]
"""mAcc, mIoU and aAcc by tau, which rises from 0, or by threshold, which falls: both find more."""
Points = list[tuple[float, float]]


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return section('', post_hoc_table(comparison))


class FreeOption(NamedTuple):
    """What the baseline's models give without another training.

    Attributes:
        sentence: What it is, what it gains, and how to have it.
        best: mAcc and mIoU at its best value, of each seed.
        finds_more: Whether more than two classes are found then, which mean accuracy shows.
    """

    sentence: str
    best: dict[int | None, dict[str, float]]
    finds_more: bool

    def against(self, loss: Loss) -> str:
        """How far a loss is above it, over the seeds that both have."""
        seeds = [run.seed for run in loss.runs if run.seed in self.best]
        if not seeds:
            return ''
        gains = {
            name: estimate(
                np.array(
                    [
                        run.metrics.get(name, np.nan) - self.best[run.seed][name]
                        for run in loss.runs
                        if run.seed in seeds
                    ]
                )
            )
            for name in ('mAcc', 'mIoU')
        }
        texts = [interval_text(gain, 1) for gain in gains.values()]
        return f' Against what is free: mean accuracy {texts[0]}, mIoU {texts[1]}.'


def free_option(comparison: Comparison) -> FreeOption | None:
    """The best tau, or threshold, of the baseline's models; None where none was tested."""
    base = comparison.baseline
    if base is None:
        return None
    option, as_is = option_of(base)
    tested, grid = _tested(base)
    if not grid - {as_is}:
        return None

    def values(run: Run, value: float) -> dict[str, float]:
        place = _place(value, option, as_is)
        return {name: run.metrics[f'{place}{name}'] for name in ('mAcc', 'mIoU')}

    means = {
        value: float(np.mean([values(run, value)['mIoU'] for run in tested]))
        for value in sorted({as_is, *grid})
    }
    value, end = best_of_grid(means, as_is)
    best = {run.seed: values(run, value) for run in tested}
    found = float(np.mean([one['mAcc'] for one in best.values()]))
    number = max(len(comparison.classes), 1)
    what = 'logits adjusted with tau' if option == 'tau' else 'a threshold'
    key = 'logit_adjustment.tau' if option == 'tau' else 'model.decode_head.threshold'
    if value == as_is:
        tried = ', '.join(f'{value:g}' for value in sorted(grid - {as_is}))
        sentence = (
            f'Free, without training: {what} of {tried} gains cross-entropy no mean IoU here.'
        )
    else:
        gains = [
            interval_text(
                estimate(np.array([best[run.seed][n] - run.metrics[n] for run in tested])), 1
            )
            for n in ('mAcc', 'mIoU')
        ]
        sentence = (
            f'Free, without training: cross-entropy with {what} = {value:g}, mean accuracy '
            f'{gains[0]}, mIoU {gains[1]}; tools/test.py with --cfg-options {key}={value:g}.'
            f'{end} It was chosen on the images that it is scored on: choose it on others.'
        )
    return FreeOption(sentence, best, found > 200 / number)


def offsets(base: Loss) -> tuple[str, ...]:
    """What an offset a class gains, of the runs whose records have it."""
    gains = [
        run.metrics['mIoU_with_offsets'] - run.metrics['mIoU_as_is']
        for run in base.runs
        if {'mIoU_with_offsets', 'mIoU_as_is'} <= run.metrics.keys()
    ]
    if not gains:
        return ()
    gain = interval_text(estimate(np.array(gains)), 1)
    return (f'Free, too: an offset for each class, fitted on the validation images, mIoU {gain}.',)


def untested(base: Loss) -> str:
    """That there is something free, where these runs do not say what it gains."""
    if base.one_channel is not None:
        return (
            f'Free, without training, and not tested here: another threshold than '
            f'{base.one_channel:g}, by tools/test.py with --cfg-options '
            'model.decode_head.threshold=0.5.'
        )
    return (
        'Free, without training, and not tested here: adjusted logits of cross-entropy. '
        'tools/class_statistics.py CONFIG counts the classes, which they need; then '
        'tools/diagnose.py CONFIG --checkpoint FILE says what they gain.'
    )


def option_of(base: Loss) -> tuple[str, float]:
    """What is changed without training, tau or the threshold, and its value in the models as is."""
    return ('tau', 0.0) if base.one_channel is None else ('threshold', base.one_channel)


def curve_label(base: Loss) -> str:
    """What the curve is of, for a legend."""
    what = 'logits adjusted' if option_of(base)[0] == 'tau' else 'other thresholds'
    return f'{base.label}, {what}'


def _tested(base: Loss) -> tuple[list[Run], set[float]]:
    """The runs that were tested with other values, and the values that all of them have."""
    prefix = f'{option_of(base)[0]}='
    tested = [run for run in base.runs if _grid(run, prefix)]
    return tested, set.intersection(*(_grid(run, prefix) for run in tested)) if tested else set()


def _grid(run: Run, prefix: str) -> set[float]:
    names = (re.fullmatch(f'{prefix}(.+)/mIoU', name) for name in run.metrics)
    return {float(match[1]) for match in names if match}


def post_hoc_curve(comparison: Comparison) -> Curve | None:
    """The baseline's curve; None where its runs were not tested with another tau or threshold.

    All points are means over the same runs: those that were tested so, at the values that all of
    them have.
    """
    base = comparison.baseline
    tested, grid = _tested(base) if base is not None else ([], set())
    if base is None or not grid:
        return None
    option, as_is = option_of(base)
    loss = Loss(base.label, tuple(tested))
    return {
        value: {name: loss.metric(f'{_place(value, option, as_is)}{name}') for name in MAIN}
        for value in sorted({as_is, *grid}, reverse=option == 'threshold')
    }


def _place(value: float, option: str, as_is: float) -> str:
    """What stands before the name of a metric."""
    return '' if value == as_is else f'{option}={value:g}/'


def curves_by_seed(comparison: Comparison) -> dict[int | None, Points]:
    """(mAcc, mIoU) of each point of the curve of each of the baseline's runs that has one."""
    curve, base = post_hoc_curve(comparison), comparison.baseline
    if curve is None or base is None:
        return {}
    places = [_place(value, *option_of(base)) for value in curve]
    return {
        run.seed: [(run.metrics[f'{place}mAcc'], run.metrics[f'{place}mIoU']) for place in places]
        for run in _tested(base)[0]
    }


def points_of(curve: Curve) -> Points:
    """(mAcc, mIoU) of each."""
    return [(values['mAcc'].mean, values['mIoU'].mean) for values in curve.values()]


def upper_envelope(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """The highest y at ``x`` of the line through the points, in their order.

    Returns:
        y; None where the line does not reach ``x``.

    Example:
        >>> upper_envelope([(50, 40), (60, 44), (70, 38)], 65)
        41.0
        >>> upper_envelope([(50, 40), (60, 44)], 61) is None
        True
    """
    heights = []
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 == x1 == x:
            heights.append(max(y0, y1))
        elif min(x0, x1) <= x <= max(x0, x1):
            heights.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return max(heights, default=None)


def post_hoc_table(comparison: Comparison) -> Table | None:
    """A row a tau, or a threshold; None without a curve."""
    curve, base = post_hoc_curve(comparison), comparison.baseline
    if curve is None or base is None:
        return None
    option, as_is = option_of(base)
    rows = tuple(
        (Cell(f'{tau:g}', tau), *(estimated(values[name]) for name in MAIN))
        for tau, values in curve.items()
    )
    seeds = curve[as_is]['mIoU'].seeds
    what = (
        f'tau log prior subtracted from their logits; the prior is the share of each class in the '
        f'training pixels, and tau = 0 is {base.label} as it is'
        if option == 'tau'
        else f'another threshold of the probability of the second class; {as_is:g} is {base.label} '
        'as it is'
    )
    note = (
        f'Per cent. The trained models of {base.label}, tested with {what}. {INTERVALS[:-1]}, over '
        f'seeds ({seeds}).'
    )
    title = 'Post-hoc logit adjustment of' if option == 'tau' else 'Other thresholds of'
    columns = (option, *(OVERALL[name] for name in MAIN))
    return Table(f'{title} {base.label}', note, columns, rows)
