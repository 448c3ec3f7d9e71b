"""The tables, as cells that HTML, Markdown and CSV print in their own way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..evaluation.shots import SHOTS
from .paper import PAPER_NAMES, PaperTable
from .summary import DIGITS, Comparison, Loss, Value, ranks

OVERALL = {
    'mAcc': 'mean accuracy',
    'mIoU': 'mean IoU',
    'aAcc': 'overall accuracy',
    'mPrecision': 'mean precision',
    'mF1': 'mean F1',
    'mIoU_I': 'mIoU^I',
    'mIoU_C': 'mIoU^C',
    'mIoU_I5': 'mIoU^I worst 5%',
    'mIoU_C5': 'mIoU^C worst 5%',
}
NOTHING = '-'


@dataclass(frozen=True)
class Cell:
    """Text; the number to sort by (None: by the text); 'best', 'second', 'paper' or ''."""

    text: str
    sort: float | None = None
    mark: str = ''


@dataclass(frozen=True)
class Table:
    """A heading, what must be known to read it, column names, and rows of cells."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def number(value: float, digits: int = 2, mark: str = '') -> Cell:
    """A number, or a dash for NaN, which sorts last."""
    if math.isnan(value):
        return Cell(NOTHING, -math.inf)
    return Cell(f'{value:.{digits}f}', value, mark)


def spread(value: Value, mark: str = '') -> Cell:
    """Mean ± standard deviation over seeds; the mean alone for one seed."""
    cell = number(value.mean, DIGITS, mark)
    if math.isnan(value.std):
        return cell
    return Cell(f'{cell.text} ± {value.std:.{DIGITS}f}', cell.sort, mark)


def overall_table(comparison: Comparison) -> Table:
    """A row a loss: what is averaged over classes, and over the minority classes."""
    measures: dict[str, Callable[[Loss], Value]] = {
        title: partial(Loss.metric, name=name) for name, title in OVERALL.items()
    }
    note = 'Per cent. '
    minority = comparison.minority
    if minority:
        added = {
            f'minority {title}': partial(Loss.mean_over, name=name, classes=minority)
            for name, title in (('Acc', 'accuracy'), ('IoU', 'IoU'))
        }
        items = list(measures.items())
        measures = dict([*items[:3], *added.items(), *items[3:]])
        named = ', '.join(comparison.classes[c] for c in minority)
        note += f'Minority: classes with IoU under CE below 80 ({named}). '
    note += 'Mean ± standard deviation over seeds; best bold, second underlined.'
    # Work directories of stock mmseg do not have every metric.
    known = {t: m for t, m in measures.items() if any(m(loss).n for loss in comparison.losses)}
    best = {t: ranks(comparison.losses, lambda v, m=m: m(v).mean) for t, m in known.items()}
    rows = []
    for loss in comparison.losses:
        cells = [spread(m(loss), best[t].get(loss.label, '')) for t, m in known.items()]
        rows.append((Cell(loss.label), Cell(str(len(loss.runs)), len(loss.runs)), *cells))
    return Table('All classes', note, ('loss', 'seeds', *known), tuple(rows))


def class_table(comparison: Comparison, metric: str, title: str) -> Table | None:
    """Tables 2 and 3: a row a class, a column a loss, averages below."""
    losses = tuple(loss for loss in comparison.losses if loss.class_means(metric).size)
    if not losses:
        return None
    share, minority = comparison.share, comparison.minority
    columns = ['class', *(['share of pixels'] if share is not None else [])]
    rows = []
    for c, name in enumerate(comparison.classes):
        best = ranks(losses, lambda loss, c=c: loss.per_class(metric, c).mean)
        cells = [spread(loss.per_class(metric, c), best.get(loss.label, '')) for loss in losses]
        row = [Cell(f'{name}{" †" if c in minority else ""}')]
        if share is not None:
            row.append(Cell(f'{share[c]:.3g}%', float(share[c])))
        rows.append((*row, *cells))
    groups = {'average': [c for c in range(len(comparison.classes))], 'average †': minority}
    for name, members in groups.items():
        if members:
            best = ranks(losses, lambda loss, m=members: loss.mean_over(metric, m).mean)
            cells = [
                spread(loss.mean_over(metric, members), best.get(loss.label, '')) for loss in losses
            ]
            filler = [Cell('')] if share is not None else []
            rows.append((Cell(name), *filler, *cells))
    note = 'Per cent. † IoU under CE below 80.' if minority else 'Per cent.'
    if share is not None:
        note += f' Share of the pixels of the {comparison.share_of} set.'
    return Table(title, note, (*columns, *(loss.label for loss in losses)), tuple(rows))


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
    rows = []
    for ours, theirs in table.classes.items():
        if ours not in comparison.classes:
            continue
        c = comparison.classes.index(ours)
        cells = [Cell(f'{ours}{" †" if theirs in table.minority else ""}')]
        for loss, name in pairs:
            cells.append(number(table.values[metric][name].get(theirs, math.nan), mark='paper'))
            cells.append(spread(loss.per_class(metric, c)))
        rows.append(tuple(cells))
    cells = [Cell('average †')]
    minority = [
        comparison.classes.index(ours)
        for ours, theirs in table.classes.items()
        if theirs in table.minority and ours in comparison.classes
    ]
    for loss, name in pairs:
        cells.append(number(table.values[metric][name]['ave.'], mark='paper'))
        cells.append(spread(loss.mean_over(metric, minority)))
    rows.append(tuple(cells))
    note = f"The paper's {table.title}; † as the paper marks minority classes. " + ' '.join(
        table.notes
    )
    return Table(f"{title}: the paper's numbers beside ours", note, tuple(columns), tuple(rows))


def zoo_table(comparison: Comparison) -> Table:
    """The results as mmseg's READMEs print them."""
    method, _, backbone = comparison.setup['model'].partition(' ')
    rows = []
    for loss in comparison.losses:
        run = loss.runs[0]
        memory = [r.memory / 1024 for r in loss.runs if r.memory is not None]
        seconds = [r.seconds for r in loss.runs if r.seconds is not None]
        rows.append(
            (
                Cell(method),
                Cell(backbone),
                Cell(loss.label),
                Cell(comparison.setup['schedule']),
                number(max(memory) if memory else math.nan),
                number(float(np.mean(seconds)) if seconds else math.nan, 3),
                Cell(run.software.partition(';')[0] or NOTHING),
                number(loss.metric('mIoU').mean),
                number(loss.metric('mAcc').mean),
                Cell(run.config_file),
            )
        )
    columns = ('Method', 'Backbone', 'Loss', 'Lr schd', 'Mem (GB)', 'Train time (s/iter)')
    columns += ('Device', 'mIoU', 'mAcc', 'config')
    return Table("In the form of mmseg's model zoo", '', columns, tuple(rows))


def runs_table(comparison: Comparison) -> Table:
    """Every run: seed, what was evaluated, main metrics, config."""
    rows = []
    names = ('top1', *SHOTS) if comparison.classifies else ('mAcc', 'mIoU', 'aAcc')
    for run in comparison.runs:
        metrics = [number(run.metrics.get(name, math.nan)) for name in names]
        seed = Cell(NOTHING) if run.seed is None else Cell(str(run.seed), run.seed)
        tail = (Cell(run.evaluated), Cell(run.config_file))
        rows.append((Cell(run.name), Cell(run.loss), seed, *metrics, *tail))
    columns = ('run', 'loss', 'seed', *names, 'evaluated on', 'config')
    return Table('Runs', '', columns, tuple(rows))


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
                rows.append(
                    [
                        comparison.title,
                        run.loss,
                        run.seed,
                        name,
                        '' if share is None else f'{share[c] / 100:.6g}',
                        *('' if math.isnan(v) else f'{v:.4f}' for v in values),
                    ]
                )
    return rows


def run_rows(comparisons: list[Comparison]) -> list[list[object]]:
    """For ``runs.csv``: a row a run."""
    names = list(OVERALL) if any(not c.classifies for c in comparisons) else []
    names += ['top1', *SHOTS] if any(c.classifies for c in comparisons) else []
    head = ['comparison', 'run', 'loss', 'seed', *names, 'seconds_per_iteration', 'memory_mib']
    rows: list[list[object]] = [head]
    for comparison in comparisons:
        for run in comparison.runs:
            values = [run.metrics.get(name) for name in names]
            values = ['' if v is None else f'{v:.4f}' for v in values]
            tail = [f'{v:.6g}' if v is not None else '' for v in (run.seconds, run.memory)]
            rows.append([comparison.title, run.name, run.loss, run.seed, *values, *tail])
    return rows
