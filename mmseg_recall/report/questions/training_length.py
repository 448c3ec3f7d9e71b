"""Does cross-entropy catch up, and does the order of the losses change, when training is longer?"""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

from ...statistics import CONTRADICTED, SUPPORTED
from ..blocks import MAIN, OVERALL, Cell, Section, Table, Verdict, estimated, shown
from ..figures import Plot, bars, legend, plot, span, styles, subplots
from ..judge import Difference, interval_text, judge
from ..summary import BASELINE, Comparison, Loss

ORDER = 40
RANKED = ('mIoU', 'mAcc')


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
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
    blocks = (
        _answer(lengths, losses, unit),
        shown(_plot(lengths, losses, unit, comparison)),
        _table(lengths, losses, unit),
    )
    return Section('Does longer training change the answer?', blocks)


def _answer(lengths: dict[int, Comparison], losses: tuple[str, ...], unit: str) -> Verdict:
    sentences, changed, seen = [], [], []
    for metric in RANKED:
        orders = {n: sorted(losses, key=partial(_below, c, metric)) for n, c in lengths.items()}
        if any(before != after for before, after in pairwise(orders.values())):
            seen.append(OVERALL[metric])
        if _reversed(lengths, losses, metric):
            changed.append(OVERALL[metric])
        in_words = '; '.join(f'{n}: {" > ".join(order)}' for n, order in orders.items())
        sentences.append(f'By {OVERALL[metric]}, after {unit}: {in_words}.')
        if BASELINE in losses:
            gaps = []
            for n, c in lengths.items():
                best = next(label for label in orders[n] if label != BASELINE)
                gap = c.difference(_of(c, best), _of(c, BASELINE), metric)
                gaps.append(f'{interval_text(gap, 1)} after {n} ({best})')
            sentences.append(f'The best loss against CE: {", ".join(gaps)}.')
    if changed:
        verdict = f'The order changes with the length of the training, in {" and ".join(changed)}'
    elif seen:
        verdict = (
            f'Not settled: the order that is seen changes in {" and ".join(seen)}, by chance or not'
        )
    else:
        verdict = 'The order that is seen is the same at every length'
    return Verdict(verdict, (*sentences, next(iter(lengths.values())).basis))


def _below(comparison: Comparison, metric: str, label: str) -> float:
    return -_of(comparison, label).metric(metric).mean


def _of(comparison: Comparison, label: str) -> Loss:
    loss = comparison.loss(label)
    assert loss is not None  # every length has it
    return loss


def _reversed(lengths: dict[int, Comparison], losses: tuple[str, ...], metric: str) -> bool:
    """Whether a loss is shown to be above another at one length and below it at another."""
    pairs = list(combinations(losses, 2))
    outcomes: dict[tuple[str, str], set[str]] = {pair: set() for pair in pairs}
    for c in lengths.values():
        claimed = [[Difference(metric, _of(c, a), _of(c, b))] for a, b in pairs]
        for pair, judged in zip(pairs, judge(c, claimed), strict=True):
            outcomes[pair].add(judged.outcome)
    return any(found >= {SUPPORTED, CONTRADICTED} for found in outcomes.values())


def _table(lengths: dict[int, Comparison], losses: tuple[str, ...], unit: str) -> Table:
    rows = []
    for label in losses:
        for n, comparison in lengths.items():
            loss = _of(comparison, label)
            seeds = Cell(str(len(loss.runs)), len(loss.runs))
            values = (estimated(comparison.estimate(loss, metric)) for metric in MAIN)
            rows.append((Cell(label), Cell(str(n), n), seeds, *values))
    note = (
        'Per cent, mean and interval of 95%. Same model, data and optimiser; '
        'only the schedule differs.'
    )
    columns = ('loss', unit, 'seeds', *(OVERALL[metric] for metric in MAIN))
    return Table('Training length', note, columns, tuple(rows))


def _plot(
    lengths: dict[int, Comparison], losses: tuple[str, ...], unit: str, comparison: Comparison
) -> Plot:
    """A line a loss over the lengths of training, with intervals; in the comparison's colours."""
    look = styles(comparison)
    steps = list(lengths)
    figure, axes = subplots(1, len(RANKED), 7.2, 3.2)
    for axis, metric in zip(axes.flat, RANKED, strict=True):
        drawn = []
        for label in losses:
            found = [c.estimate(_of(c, label), metric) for c in lengths.values()]
            drawn += found
            axis.errorbar(
                steps,
                [one.mean for one in found],
                yerr=bars(found),
                label=label,
                linewidth=1.2,
                markersize=5,
                elinewidth=1,
                **look[label],
            )
        axis.set_ylim(span(drawn))
        axis.set_xscale('log')
        axis.set_xticks(steps, [str(n) for n in steps])
        axis.minorticks_off()
        axis.set_xlabel(f'{unit} (log)')
        axis.set_title(f'{OVERALL[metric]} (%)', loc='left')
    legend(figure, 'lower center')
    shortest, *_, longest = lengths.values()
    ends = ', '.join(
        f'{label} {_of(shortest, label).metric("mIoU").mean:.1f} to '
        f'{_of(longest, label).metric("mIoU").mean:.1f}'
        for label in losses
    )
    return plot(
        figure,
        comparison,
        'lengths',
        'What longer training brings. Bars: intervals of 95%, cut where they are far longer than '
        'the losses are apart.',
        'Two line plots over the length of the training. Mean IoU from the shortest to the '
        f'longest: {ends}.',
    )
