"""What does a loss cost in time and memory?"""

from __future__ import annotations

import math

import numpy as np

from ..blocks import Cell, Section, Table, number
from ..summary import Comparison

ORDER = 100


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return Section('', (cost_table(comparison),))


def cost_table(comparison: Comparison) -> Table:
    """Time and memory of each loss, against the baseline."""
    base = comparison.baseline
    kinds = sorted({run.memory_of for run in comparison.runs if run.memory})
    rows = []
    for loss in comparison.losses:
        seconds = [run.seconds for run in loss.runs if run.seconds is not None]
        mean = float(np.mean(seconds)) if seconds else math.nan
        reference = [r.seconds for r in base.runs if r.seconds] if base is not None else []
        ratio = mean / float(np.mean(reference)) if reference else math.nan
        memory = [run.memory for run in loss.runs if run.memory is not None]
        rows.append(
            (
                Cell(loss.label),
                number(mean, 3),
                number(ratio),
                number(max(memory) if memory else math.nan, 0),
            )
        )
    note = (
        'Median over the logged intervals of training, mean over seeds; the peak of memory over '
        f'training ({" or ".join(kinds) or "unknown"}). Runs that shared a machine with other work '
        'are slower than they would be alone.'
    )
    return Table(
        'Cost', note, ('loss', 's / iteration', 'relative to CE', 'memory (MiB)'), tuple(rows)
    )
