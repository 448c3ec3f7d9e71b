"""Does cross-entropy catch up, and does the order of the losses change, when training is longer?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .diagnosis import Diagnosis
from .summary import BASELINE, DIGITS, Comparison
from .tables import OVERALL, Cell, Table, spread

METRICS = ('mAcc', 'mIoU', 'aAcc')
RANKED = ('mIoU', 'mAcc')


@dataclass(frozen=True)
class TrainingLength:
    """One model and data set, trained with several schedules.

    Attributes:
        comparisons: By length, the shortest first; one a length.
        losses: Labels of the losses that every length has, the baseline first.
        answer: Whether the order changes, and how far the baseline is behind at each length.
        table: A row a loss and length.
    """

    comparisons: dict[int, Comparison]
    losses: tuple[str, ...]
    answer: Diagnosis
    table: Table


def training_length(comparison: Comparison, comparisons: list[Comparison]) -> TrainingLength | None:
    """The comparisons that differ from this one in the schedule only, with this one.

    Args:
        comparison: Only the first of its family, which is the largest, has an answer.
        comparisons: All, in the order of the page.

    Returns:
        None unless two lengths share two losses.
    """
    family = comparison.setup.get('family')
    alike = [c for c in comparisons if family is not None and c.setup.get('family') == family]
    if not alike or alike[0] is not comparison:
        return None
    lengths: dict[int, Comparison] = {}
    for one in alike:
        lengths.setdefault(one.setup['iterations'], one)
    lengths = dict(sorted(lengths.items()))
    shared = set.intersection(*({loss.label for loss in c.losses} for c in lengths.values()))
    losses = tuple(loss.label for loss in comparison.losses if loss.label in shared)
    if len(lengths) < 2 or len(losses) < 2:
        return None
    unit = 'epochs' if ' epochs' in comparison.setup['schedule'] else 'iterations'
    return TrainingLength(
        lengths, losses, _answer(lengths, losses, unit), _table(lengths, losses, unit)
    )


def _mean(comparison: Comparison, label: str, metric: str) -> float:
    return round(comparison.loss(label).metric(metric).mean, DIGITS)


def _answer(lengths: dict[int, Comparison], losses: tuple[str, ...], unit: str) -> Diagnosis:
    sentences = []
    changed = []
    for metric in RANKED:
        orders = {
            n: sorted(losses, key=lambda label, c=c: -_mean(c, label, metric))
            for n, c in lengths.items()
        }
        if any(before != after for before, after in pairwise(orders.values())):
            changed.append(OVERALL[metric])
        in_words = '; '.join(f'{n}: {" > ".join(order)}' for n, order in orders.items())
        sentences.append(f'By {OVERALL[metric]}, after {unit}: {in_words}.')
        if BASELINE in losses:
            gaps = []
            for n, c in lengths.items():
                best = next(label for label in orders[n] if label != BASELINE)
                gap = _mean(c, best, metric) - _mean(c, BASELINE, metric)
                gaps.append(f'{gap:+.1f} after {n} ({best})')
            sentences.append(f'The best loss against CE: {", ".join(gaps)}.')
    verdict = (
        f'The order changes with the length of the training, in {" and ".join(changed)}'
        if changed
        else 'The order of the losses is the same at every length'
    )
    return Diagnosis(verdict, tuple(sentences))


def _table(lengths: dict[int, Comparison], losses: tuple[str, ...], unit: str) -> Table:
    rows = []
    for label in losses:
        for n, comparison in lengths.items():
            loss = comparison.loss(label)
            seeds = Cell(str(len(loss.runs)), len(loss.runs))
            values = (spread(loss.metric(metric)) for metric in METRICS)
            rows.append((Cell(label), Cell(str(n), n), seeds, *values))
    note = (
        'Per cent, mean ± standard deviation over seeds. Same model, data and optimiser; '
        'only the schedule differs.'
    )
    columns = ('loss', unit, 'seeds', *(OVERALL[metric] for metric in METRICS))
    return Table('Training length', note, columns, tuple(rows))
