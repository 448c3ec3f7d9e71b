"""Post-hoc logit adjustment of the baseline: the curve that every trained loss has to beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ..blocks import OVERALL, Cell, Section, Table, section, spread
from ..load import Run
from ..summary import Comparison, Loss, Value

ORDER = 20
METRICS = ('mAcc', 'mIoU', 'aAcc')
CURVE_LABEL = 'CE, logits adjusted'

Curve = dict[float, dict[str, Value]]
"""mAcc, mIoU and aAcc by tau, which rises from 0."""
Points = list[tuple[float, float]]


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return section('', post_hoc_table(comparison))


def post_hoc_curve(comparison: Comparison) -> Curve | None:
    """The baseline's curve; None where its runs were not tested with any tau.

    All points are means over the same runs: those that were tested with a tau, at the values that
    all of them have.
    """
    base = comparison.baseline
    tested = [run for run in base.runs if _taus(run)] if base is not None else []
    taus = set.intersection(*map(_taus, tested)) if tested else set()
    if not taus:
        return None
    loss = Loss(base.label, tuple(tested))
    curve = {0.0: {name: loss.metric(name) for name in METRICS}}
    for tau in sorted(taus - {0.0}):
        curve[tau] = {name: loss.metric(f'tau={tau:g}/{name}') for name in METRICS}
    return curve


def _taus(run: Run) -> set[float]:
    return {float(m[1]) for m in (re.fullmatch(r'tau=(.+)/mIoU', k) for k in run.metrics) if m}


def curves_by_seed(comparison: Comparison) -> dict[int | None, Points]:
    """(mAcc, mIoU) of each tau, from 0, of each of the baseline's runs that was tested so."""
    curve, base = post_hoc_curve(comparison), comparison.baseline
    if curve is None or base is None:
        return {}
    return {
        run.seed: [
            (run.metrics[f'{prefix}mAcc'], run.metrics[f'{prefix}mIoU'])
            for prefix in ('' if tau == 0 else f'tau={tau:g}/' for tau in curve)
        ]
        for run in base.runs
        if _taus(run)
    }


def points_of(curve: Curve) -> Points:
    """(mAcc, mIoU) of each tau."""
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
    """A row a tau; None without a curve."""
    curve = post_hoc_curve(comparison)
    if curve is None:
        return None
    rows = tuple(
        (Cell(f'{tau:g}', tau), *(spread(values[name]) for name in METRICS))
        for tau, values in curve.items()
    )
    seeds = curve[0.0]['mIoU'].n
    note = (
        'Per cent. The trained models of CE, tested with tau log prior subtracted from their '
        'logits; the prior is the share of each class in the training pixels, and tau = 0 is CE '
        f'as it is. Mean ± standard deviation over seeds ({seeds}).'
    )
    columns = ('tau', *(OVERALL[name] for name in METRICS))
    return Table('Post-hoc logit adjustment of CE', note, columns, rows)
