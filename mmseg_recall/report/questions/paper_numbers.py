"""How far are these runs from the paper's?"""

from __future__ import annotations

import math

from ..blocks import INTERVALS, Cell, Section, Table, estimated, number
from ..paper import PAPER_NAMES, PaperTable, paper_table
from ..summary import Comparison

ORDER = 70


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    printed = paper_table(comparison)
    if printed is None or not comparison.classes:
        return None
    tables = (
        paper_comparison(comparison, printed, metric, title)
        for metric, title in (('Acc', 'Accuracy'), ('IoU', 'IoU'))
    )
    return Section('', tuple(tables))


def paper_comparison(comparison: Comparison, table: PaperTable, metric: str, title: str) -> Table:
    """The paper's numbers beside ours, class by class, for the losses that both have."""
    pairs = [
        (loss, PAPER_NAMES[loss.label])
        for loss in comparison.losses
        if PAPER_NAMES.get(loss.label) in table.values[metric]
    ]
    columns = ['class']
    for loss, _ in pairs:
        columns += [f'{loss.label}: paper', f'{loss.label}: ours']
    index = {theirs: ours for ours, theirs in table.classes.items() if ours in comparison.classes}
    minority = tuple(comparison.classes.index(index[c]) for c in index if c in table.minority)
    asked: list[tuple[str, str, int | tuple[int, ...]]] = [
        (f'{ours}{" †" if c in table.minority else ""}', c, comparison.classes.index(ours))
        for c, ours in index.items()
    ]
    rows = []
    for title_of_row, theirs, classes in [*asked, ('average †', 'ave.', minority)]:
        cells = [Cell(title_of_row)]
        for loss, name in pairs:
            cells.append(number(table.values[metric][name].get(theirs, math.nan), mark='paper'))
            cells.append(estimated(comparison.estimate(loss, (metric, classes))))
        rows.append(tuple(cells))
    note = (
        f"The paper's {table.title}; † as the paper marks minority classes. {INTERVALS} "
        + ' '.join(table.notes)
    )
    return Table(f"{title}: the paper's numbers beside ours", note, tuple(columns), tuple(rows))
