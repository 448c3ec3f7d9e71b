"""A table of metrics that only some runs have, each beside its distance to the baseline."""

from __future__ import annotations

from .blocks import Cell, Section, Table, estimated, section
from .judge import Difference, above_text, judge
from .summary import Comparison


def beside_baseline(
    comparison: Comparison, metrics: dict[str, str], title: str, note: str
) -> Section | None:
    """The losses whose runs have all the metrics; None if those of the baseline do not."""
    base = comparison.baseline
    losses = [
        loss
        for loss in comparison.losses
        if all(name in run.metrics for run in loss.runs for name in metrics)
    ]
    if base is None or base not in losses:
        return None
    others = [loss for loss in losses if loss is not base]
    rows = [[Cell(loss.label)] for loss in (base, *others)]
    columns = ['loss']
    for metric, heading in metrics.items():
        columns += [heading, 'above CE']
        judged = judge(comparison, [[Difference(metric, loss, base)] for loss in others])
        texts = [Cell(above_text(one), one.estimate.mean) for one in judged]
        for row, loss, text in zip(rows, (base, *others), (Cell('-'), *texts), strict=True):
            row += [estimated(comparison.estimate(loss, metric)), text]
    note += (
        ' Beside each the distance to CE of the same seeds. Intervals of 95% over seeds; above, '
        f"below or not settled after Holm's correction over {len(others)} losses."
    )
    return section('', Table(title, note, tuple(columns), tuple(map(tuple, rows))))
