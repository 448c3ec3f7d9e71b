"""Which losses differ from cross-entropy? Means, and classes, with intervals."""

from __future__ import annotations

from textwrap import fill

from ..bases import PREFIX, base_of
from ..blocks import MAIN, NOTHING, OVERALL, Cell, Section, Table, Text, section, shown
from ..figures import INK, Plot, bars, plot, subplots
from ..judge import Difference, above_text, interval_text, judge
from ..summary import Comparison, Loss

ORDER = 15
SHOT_METRICS = {'top1': 'accuracy', 'few': 'few-shot accuracy'}
MAX_LOSSES = 8
MAX_CLASSES = 30
LINE = 68
"""Letters of titles that stand side by side."""


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    base = comparison.baseline
    others = [loss for loss in comparison.losses if loss is not base]
    if base is None or not others:
        return None
    table = difference_table(comparison, base, others)
    figure = None if comparison.classifies else class_differences(comparison, base, others)
    return section('', table, Text(comparison.basis), shown(figure))


def difference_table(comparison: Comparison, base: Loss, others: list[Loss]) -> Table:
    """A row a loss: its difference to the baseline in each metric, its interval, its outcome."""
    metrics = SHOT_METRICS if comparison.classifies else {name: OVERALL[name] for name in MAIN}
    columns = []
    for metric in metrics:
        judged = judge(comparison, [[Difference(metric, loss, base)] for loss in others])
        columns.append([Cell(above_text(one), one.estimate.mean) for one in judged])
    note = (
        f'Points above {base.label} of the same seeds, with the interval of 95%. Above, below or '
        f"not settled: after Holm's correction over the {len(others)} losses of a column, so that "
        'of equal losses at most 5 columns in 100 name one.'
    )
    names = ['loss', *metrics.values()]
    if not comparison.classifies:
        names.append('base')
        columns.append([Cell(base_of(loss) or NOTHING) for loss in others])
        note += f" In a config: _base_ = ['your_config.py', '{PREFIX}' and the base]."
    rows = [(Cell(loss.label), *cells) for loss, *cells in zip(others, *columns, strict=True)]
    return Table('Against cross-entropy', note, tuple(names), tuple(rows))


def class_differences(comparison: Comparison, base: Loss, others: list[Loss]) -> Plot | None:
    """Small multiples: the difference of IoU of each class, with its interval, a loss a panel."""
    classes = comparison.rarest_first[:MAX_CLASSES]
    shown = sorted(others, key=lambda loss: -loss.metric('mIoU').mean)[:MAX_LOSSES]
    shown = [loss for loss in shown if loss.class_means('IoU').size]
    if not classes or not shown or not base.class_means('IoU').size:
        return None
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    titles = [fill(loss.label, LINE // columns) for loss in shown]
    lines = max(title.count('\n') for title in titles)
    height = rows * (0.17 * len(classes) + 0.9 + 0.15 * lines)
    figure, axes = subplots(rows, columns, 7.2, height, sharex=True, sharey=True)
    for axis, loss, title in zip(axes.flat, shown, titles, strict=False):
        found = [comparison.difference(loss, base, ('IoU', c)) for c in classes]
        axis.errorbar(
            [one.mean for one in found],
            range(len(classes)),
            xerr=bars(found),
            color=INK,
            linestyle='none',
            marker='o',
            markersize=3,
            elinewidth=1,
        )
        axis.axvline(0, color=INK, linewidth=0.8)
        # Two seeds may have intervals of any length: what is drawn are 60 points.
        axis.set_xlim(-60, 60)
        axis.set_title(title, loc='left')
        axis.set_yticks(range(len(classes)), [comparison.classes[c] for c in classes])
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis in axes.flat[len(shown) - columns : len(shown)]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel('IoU above CE (points)', fontsize=9)
    best = shown[0]
    first = interval_text(comparison.difference(best, base, ('IoU', classes[0])), 1)
    return plot(
        figure,
        comparison,
        'differences',
        'What each class gains or loses in IoU against cross-entropy, with intervals of 95%; rare '
        f'classes below. {comparison.basis}',
        f'Small plots of the difference of IoU by class, one a loss. {best.label} on '
        f'{comparison.classes[classes[0]]}: {first}.',
    )
