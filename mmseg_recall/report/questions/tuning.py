"""Does tuning the learning rate of each loss change their order?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..blocks import NOTHING, Cell, Section, Table, number, section
from ..summary import DIGITS, Comparison

ORDER = 24


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    asked = ((loss.label, loss.runs[0].setup.get('tuning')) for loss in comparison.losses)
    tunings: dict[str, dict[str, Any]] = {label: tuning for label, tuning in asked if tuning}
    base = comparison.baseline
    if base is None or base.label not in tunings or len(tunings) < 2:
        return None
    tuning = tunings[base.label]
    unit = 'epochs' if 'epochs' in tuning['trials'][0] else 'iterations'
    lengths = sorted({trial[unit] for trial in tuning['trials']})
    first, last = (
        {label: _scores(one['trials'], unit, which) for label, one in tunings.items()}
        for which in (min, max)
    )
    taken = {label: max(scores, key=lambda lr: scores[lr]) for label, scores in last.items()}
    common = taken[base.label]
    before = _places({label: scores[common] for label, scores in first.items()})
    after = _places({label: last[label][lr] for label, lr in taken.items()})
    rows = [
        (
            Cell(label),
            *(_score(scores[lr]) for lr in tuning['learning_rates']),
            Cell(str(before[label]), before[label]),
            Cell(f'{taken[label]:g}', taken[label]),
            _score(last[label][taken[label]]),
            Cell(str(after[label]), after[label]),
        )
        for label, scores in first.items()
    ]
    note = (
        f'Scores on validation images, one seed: of each learning rate after {lengths[0]} {unit}, '
        f'with the place of a loss if all had that of {base.label}, {common:g}; then of the one '
        f'taken after {lengths[-1]} {unit}, with the place of a loss among the tuned. '
        f'{tuning["budget"]} {unit} of trials a loss. One seed says nothing of chance.'
    )
    rates = (f'{lr:g}' for lr in tuning['learning_rates'])
    columns = 'loss', *rates, f'place at {common:g}', 'taken', 'tuned', 'place tuned'
    table = Table('Learning rates', note, columns, tuple(rows))
    return section('Does tuning change the order?', table)


def _scores(
    trials: list[dict[str, Any]], unit: str, which: Callable[[Iterable[int]], int]
) -> dict[float, float]:
    """By learning rate, of the shortest or the longest trials; -inf where one failed."""
    metric, length = 'top1' if 'top1' in trials[0] else 'mIoU', which(t[unit] for t in trials)
    scores = {trial['lr']: trial[metric] for trial in trials if trial[unit] == length}
    return {lr: -math.inf if score is None else score for lr, score in scores.items()}


def _score(score: float) -> Cell:
    return Cell(NOTHING) if score == -math.inf else number(score, DIGITS)


def _places(scores: dict[str, float]) -> dict[str, int]:
    """1 for the largest.

    Example:
        >>> _places({'a': 20.0, 'b': 30.0})
        {'a': 2, 'b': 1}
    """
    return {name: 1 + sum(v > score for v in scores.values()) for name, score in scores.items()}
