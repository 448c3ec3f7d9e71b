"""A page is a list of sections, a section a list of blocks; the templates know these kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..statistics import Estimate, with_interval
from .summary import DIGITS, Comparison, Loss, Metric, ranks

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
MAIN = ('mAcc', 'mIoU', 'aAcc')
NOTHING = '-'
INTERVALS = 'Mean and interval of 95%.'


@dataclass(frozen=True)
class Cell:
    """Text; the number to sort by (None: by the text); 'best', 'second', 'paper' or ''."""

    text: str
    sort: float | None = None
    mark: str = ''


@dataclass(frozen=True)
class Table:
    """A heading, what must be known to read it, column names, and rows of cells."""

    kind: ClassVar = 'table'
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def number(value: float, digits: int = 2, mark: str = '') -> Cell:
    """A number, or a dash for NaN, which has none to sort by."""
    if math.isnan(value):
        return Cell(NOTHING)
    return Cell(f'{value:.{digits}f}', value, mark)


def estimated(found: Estimate, mark: str = '') -> Cell:
    """Mean and interval, of per cent; the mean alone where nothing is known of chance.

    Example:
        >>> estimated(Estimate(98.0, seeds=3, seed_error=1.0)).text
        '98.0 (93.7 to 100.0)'
    """
    if math.isnan(found.mean):
        return Cell(NOTHING)
    low, high = found.interval()
    text = with_interval(found.mean, max(low, 0), min(high, 100), digits=DIGITS)
    return Cell(text, found.mean, mark)


def ranked(comparison: Comparison, losses: Sequence[Loss], metric: Metric) -> list[Cell]:
    """A cell a loss; the best and the second, as printed, are marked."""
    found = {loss.label: comparison.estimate(loss, metric) for loss in losses}
    marks = ranks({label: one.mean for label, one in found.items()})
    return [estimated(one, marks.get(label, '')) for label, one in found.items()]


@dataclass(frozen=True)
class Verdict:
    """Verdict in a few words, and the sentences that give its reason, figures and advice."""

    kind: ClassVar = 'verdict'
    verdict: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim: its text; supported, contradicted, not settled or not tested; the numbers why."""

    text: str
    outcome: str
    evidence: str


@dataclass(frozen=True)
class Claims:
    """Claims, in their order."""

    kind: ClassVar = 'claims'
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Plots:
    """Plots that stand side by side where there is room."""

    kind: ClassVar = 'plots'
    plots: tuple[Any, ...]


@dataclass(frozen=True)
class Text:
    """A paragraph in small print."""

    kind: ClassVar = 'text'
    text: str


@dataclass(frozen=True)
class Section:
    """What one question comes to.

    Attributes:
        title: '' where the first block has one of its own.
        blocks: Each has a ``kind``, by which the templates print it.
        folded: Whether the page shows the title alone until it is asked for more.
    """

    title: str
    blocks: tuple[Any, ...]
    folded: bool = False


def section(title: str, *blocks: Any) -> Section | None:
    """Of the blocks that there are; None without any."""
    known = tuple(block for block in blocks if block is not None)
    return Section(title, known) if known else None


def shown(*plots: Any) -> Plots | None:
    """The plots that there are; None without any."""
    known = tuple(plot for plot in plots if plot is not None)
    return Plots(known) if known else None
