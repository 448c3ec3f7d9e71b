"""How soon is each class found?"""

from __future__ import annotations

import numpy as np

from ..blocks import NOTHING, Cell, Section, Table, section
from ..summary import Comparison, Loss

ORDER = 23


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    losses = [loss for loss in comparison.losses if any(r.first_found.size for r in loss.runs)]
    if not losses:
        return None
    found = [_of_seeds(loss) for loss in losses]
    rows = [
        (Cell(name), *(_median(seeds[:, c]) for seeds in found))
        for c, name in enumerate(comparison.classes)
    ]
    note = (
        'The iteration at which more than 5% of the pixels of a class are right for the first '
        'time, of ten checks along the training: median over the seeds, and how many of them find '
        'the class at all where not all do.'
    )
    columns = 'class', *(loss.label for loss in losses)
    table = Table('Iteration of the first find', note, columns, tuple(rows))
    return section('How soon is a class found?', table)


def _of_seeds(loss: Loss) -> np.ndarray:
    """(seeds, C), NaN of a class that is never found."""
    return np.stack([run.first_found for run in loss.runs if run.first_found.size])


def _median(iterations: np.ndarray) -> Cell:
    found = iterations[~np.isnan(iterations)]
    if not found.size:
        return Cell(NOTHING)
    # Never is later than any iteration.
    median = np.median(np.where(np.isnan(iterations), np.inf, iterations))
    text = f'{median:g}' if np.isfinite(median) else 'never'
    if found.size < iterations.size:
        text += f' ({found.size} of {iterations.size} seeds)'
    return Cell(text, float(median) if np.isfinite(median) else None)
