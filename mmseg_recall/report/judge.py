"""Claims about differences of losses, judged: supported, contradicted or not settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..statistics import (
    CONTRADICTED,
    LEVEL,
    NOT_SETTLED,
    SUPPORTED,
    Estimate,
    holm,
    outcome,
    p_of_side,
    what_would_settle,
    with_interval,
)
from .summary import Comparison, Loss, Metric

NOT_TESTED = 'not tested'
NOT_ALL_HERE = 'The losses it speaks of are not all here.'


class Difference(NamedTuple):
    """``first`` minus ``second`` in a metric, claimed to be between ``low`` and ``high``."""

    metric: Metric
    first: Loss
    second: Loss
    low: float = 0.0
    high: float = math.inf


class Judged(NamedTuple):
    """A claim's outcome and what is behind it.

    Attributes:
        outcome: Supported, contradicted or not settled.
        p: After Holm's correction.
        difference: The one that decides.
        estimate: Of that difference.
        family: How many claims were corrected together.
    """

    outcome: str
    p: float
    difference: Difference
    estimate: Estimate
    family: int


def judge(comparison: Comparison, claims: Sequence[Sequence[Difference]]) -> list[Judged]:
    """Judge claims, each that all of its differences are as claimed.

    Those about the same metrics are one family (Holm). A claim is supported when each of its
    differences is. It is contradicted when one of them is, at the level that so many of them take.
    """
    decided = [_decide(comparison, claimed) for claimed in claims]
    families: dict[frozenset[Metric], list[int]] = {}
    for i, claimed in enumerate(claims):
        families.setdefault(frozenset(d.metric for d in claimed), []).append(i)
    judged: dict[int, Judged] = {}
    for members in families.values():
        adjusted = holm([decided[i][0] for i in members])
        for i, p in zip(members, adjusted, strict=True):
            _, difference, found = decided[i]
            settled = outcome(found, p, difference.low, difference.high)
            judged[i] = Judged(settled, p, difference, found, len(members))
    return [judged[i] for i in range(len(claims))]


def maybe_best(comparison: Comparison, losses: Sequence[Loss], metric: Metric) -> set[str]:
    """The losses that these runs do not show to be below the highest mean, which is one of them.

    The best loss is left out in at most 5 of 100 cases: each is compared with the highest at the
    level of as many comparisons as there are other losses.

    Source: Hsu 1984, "Constrained simultaneous confidence intervals for multiple comparisons with
    the best".
    """
    known = [loss for loss in losses if not math.isnan(comparison.estimate(loss, metric).mean)]
    if not known:
        return set()
    best = max(known, key=lambda loss: comparison.estimate(loss, metric).mean)
    others = [loss for loss in known if loss is not best]
    p_values = [comparison.difference(best, loss, metric).p_value() for loss in others]
    open_ones = [
        loss.label
        for loss, p in zip(others, p_values, strict=True)
        if not len(others) * p < 1 - LEVEL
    ]
    return {best.label, *open_ones}


def _decide(
    comparison: Comparison, claimed: Sequence[Difference]
) -> tuple[float, Difference, Estimate]:
    found = [comparison.difference(d.first, d.second, d.metric) for d in claimed]
    tested = [(p_of_side(e, d.low, d.high), d, e) for d, e in zip(claimed, found, strict=True)]
    unknown = [one for one in tested if math.isnan(one[0])]
    if unknown:
        return unknown[0]
    against = [(p, d, e) for p, d, e in tested if not d.low < e.mean < d.high]
    if not against:
        return max(tested, key=lambda one: one[0])
    p, difference, estimate = min(against, key=lambda one: one[0])
    return min(1.0, len(claimed) * p), difference, estimate


def evidence(judged: Judged) -> str:
    """The difference that decides, its p-value after correction, and what would settle it."""
    difference, found = judged.difference, judged.estimate
    first, second = difference.first, difference.second
    above, below = (loss.metric(str(difference.metric)).mean for loss in (first, second))
    text = (
        f'{difference.metric}: {first.label} {above:.2f}, {second.label} {below:.2f}; difference '
        f'{interval_text(found)}, {seeds_text(found)}'
    )
    if not math.isnan(judged.p):
        text += f', {p_text(judged.p)}'
    if judged.outcome != NOT_SETTLED:
        return f'{text}.'
    ends = [end for end in (difference.low, difference.high) if math.isfinite(end)]
    nearest = min(ends, key=lambda end: abs(end - found.mean))
    return f'{text}. To settle it: {what_would_settle(found, nearest, judged.family)}.'


def interval_text(found: Estimate, digits: int = 2) -> str:
    """A difference with its interval, by :func:`mmseg_recall.statistics.with_interval`.

    Example:
        >>> interval_text(Estimate(2.0, seeds=3, seed_error=0.5), 1)
        '+2.0 (-0.2 to +4.2)'
    """
    return with_interval(found.mean, *found.interval(), digits=digits, sign='+')


def above_text(judged: Judged) -> str:
    """A difference from a baseline with its interval, and on which side it is shown to be."""
    side = {SUPPORTED: 'above', CONTRADICTED: 'below'}.get(judged.outcome, judged.outcome)
    return f'{interval_text(judged.estimate, 1)} {side}'


def p_text(p: float) -> str:
    """A p-value, in words."""
    return f'p = {p:.2g}' if p >= 0.001 else 'p < 0.001'


def seeds_text(found: Estimate) -> str:
    """Their number, in words."""
    return 'one seed' if found.seeds == 1 else f'{found.seeds} seeds'
