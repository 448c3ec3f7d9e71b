"""The numbers of the page as rows of CSV files."""

from __future__ import annotations

import math

from ..evaluation.shots import SHOTS
from .blocks import OVERALL
from .summary import Comparison


def class_rows(comparisons: list[Comparison]) -> list[list[object]]:
    """For ``classes.csv``: a row for each comparison, run and class."""
    rows: list[list[object]] = [
        ['comparison', 'loss', 'seed', 'class', 'pixel_share', 'IoU', 'Acc', 'Precision', 'F1']
    ]
    for comparison in comparisons:
        share = comparison.share
        for run in comparison.runs:
            for c, name in enumerate(run.classes):
                values = [run.per_class[m][c] for m in ('IoU', 'Acc', 'Precision', 'F1')]
                texts = ('' if math.isnan(v) else f'{v:.4f}' for v in values)
                of_class = '' if share is None else f'{share[c] / 100:.6g}'
                rows.append([comparison.title, run.loss, run.seed, name, of_class, *texts])
    return rows


def run_rows(comparisons: list[Comparison]) -> list[list[object]]:
    """For ``runs.csv``: a row a run."""
    names = list(OVERALL) if any(not c.classifies for c in comparisons) else []
    names += ['top1', *SHOTS] if any(c.classifies for c in comparisons) else []
    head: list[object] = [
        'comparison',
        'run',
        'loss',
        'seed',
        *names,
        'seconds_per_iteration',
        'memory_mib',
    ]
    rows = [head]
    for comparison in comparisons:
        for run in comparison.runs:
            found = [run.metrics.get(name) for name in names]
            values = ['' if v is None else f'{v:.4f}' for v in found]
            tail = [f'{v:.6g}' if v is not None else '' for v in (run.seconds, run.memory)]
            rows.append([comparison.title, run.name, run.loss, run.seed, *values, *tail])
    return rows
