"""Does a loss teach more, or does it only draw the line between the classes elsewhere?"""

from __future__ import annotations

from ..blocks import Cell, Section, Table, estimated, section
from ..judge import Difference, interval_text, judge
from ..summary import Comparison

ORDER = 21
METRICS = {
    'mIoU_as_is': 'mean IoU',
    'mIoU_with_offsets': 'mean IoU with offsets',
    'mAP': 'mean average precision',
}


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    base = comparison.baseline
    if base is None or not all(name in run.metrics for run in base.runs for name in METRICS):
        return None
    others = [
        loss
        for loss in comparison.losses
        if loss is not base and all(name in run.metrics for run in loss.runs for name in METRICS)
    ]
    rows = [[Cell(loss.label)] for loss in (base, *others)]
    words = {'supported': 'above', 'contradicted': 'below'}
    for metric in METRICS:
        judged = judge(comparison, [[Difference(metric, loss, base)] for loss in others])
        texts = []
        for j in judged:
            above = f'{interval_text(j.estimate, 1)} {words.get(j.outcome, j.outcome)}'
            texts.append(Cell(above, j.estimate.mean))
        for row, loss, text in zip(rows, (base, *others), (Cell('-'), *texts), strict=True):
            row += [estimated(comparison.estimate(loss, metric)), text]
    note = (
        'Per cent, with the distance to CE of the same seeds, of every fourth pixel of every '
        'fourth row of the test images. Offsets are constants added to the logits of each class, '
        'fitted on the validation images after training: what is left of a gain when both sides '
        'have theirs is what the loss has taught, and not where it draws the line. Average '
        'precision ranks the pixels by the probability of a class, and knows no line at all. '
        "Intervals of 95% over seeds; above, below or not settled after Holm's correction over "
        f'{len(others)} losses.'
    )
    columns = ['loss']
    for name in METRICS.values():
        columns += [name, 'above CE']
    title = 'What a loss teaches, and where it draws the line'
    return section('', Table(title, note, tuple(columns), tuple(map(tuple, rows))))
