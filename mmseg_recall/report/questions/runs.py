"""Which runs are these? Model zoo, runs and software."""

from __future__ import annotations

import math

from ...evaluation.shots import SHOTS
from ..blocks import MAIN, NOTHING, Cell, Section, Table, Text, number
from ..summary import Comparison

ORDER = 110


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    software = sorted({run.software for run in comparison.runs if run.software})
    blocks = (runs_table(comparison), *map(Text, software))
    if comparison.classifies:
        return Section('Runs and software', blocks, folded=True)
    return Section('Runs, model zoo and software', (zoo_table(comparison), *blocks), folded=True)


def zoo_table(comparison: Comparison) -> Table:
    """The results as mmseg's READMEs print them."""
    method, _, backbone = comparison.setup['model'].partition(' ')
    rows = []
    for loss in comparison.losses:
        run = loss.runs[0]
        rows.append(
            (
                Cell(method),
                Cell(backbone),
                Cell(loss.label),
                Cell(comparison.setup['schedule']),
                number(loss.memory / 1024),
                number(loss.seconds, 3),
                Cell(run.software.partition(';')[0] or NOTHING),
                number(loss.metric('mIoU').mean),
                number(loss.metric('mAcc').mean),
                Cell(run.config_file),
            )
        )
    columns = (
        *('Method', 'Backbone', 'Loss', 'Lr schd', 'Mem (GB)', 'Train time (s/iter)'),
        *('Device', 'mIoU', 'mAcc', 'config'),
    )
    return Table("In the form of mmseg's model zoo", '', columns, tuple(rows))


def runs_table(comparison: Comparison) -> Table:
    """Every run: seed, what was evaluated, main metrics, config."""
    rows = []
    names = ('top1', *SHOTS) if comparison.classifies else MAIN
    for run in comparison.runs:
        metrics = [number(run.metrics.get(name, math.nan)) for name in names]
        seed = Cell(NOTHING) if run.seed is None else Cell(str(run.seed), run.seed)
        tail = (Cell(run.evaluated), Cell(run.config_file))
        rows.append((Cell(run.name), Cell(run.loss), seed, *metrics, *tail))
    columns = ('run', 'loss', 'seed', *names, 'evaluated on', 'config')
    return Table('Runs', '', columns, tuple(rows))
