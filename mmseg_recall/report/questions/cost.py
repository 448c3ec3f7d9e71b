"""What does a loss cost in time and memory?"""

from __future__ import annotations

from ..blocks import Cell, Section, Table, number
from ..summary import Comparison

ORDER = 100


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    base = comparison.baseline
    kinds = sorted({run.memory_of for run in comparison.runs if run.memory})
    reference = float('nan') if base is None else base.seconds or float('nan')
    rows = []
    for loss in comparison.losses:
        numbers = number(loss.seconds, 3), number(loss.seconds / reference), number(loss.memory, 0)
        rows.append((Cell(loss.label), *numbers))
    note = (
        'Median over the logged intervals of training, mean over seeds; the peak of memory over '
        f'training ({" or ".join(kinds) or "unknown"}). Runs that shared a machine with other work '
        'are slower than they would be alone.'
    )
    columns = ('loss', 's / iteration', 'relative to CE', 'memory (MiB)')
    return Section('', (Table('Cost', note, columns, tuple(rows)),))
