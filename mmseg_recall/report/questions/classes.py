"""How does each class do? Tables 2 and 3 of the paper, and recall against precision."""

from __future__ import annotations

from ..blocks import INTERVALS, Cell, Section, Table, ranked, section, shown
from ..figures import Plot, legend, plot, styles, subplots
from ..summary import Comparison

ORDER = 60

MAX_SMALL_PLOTS = 20


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if comparison.classifies:
        return None
    titles = {'Acc': 'Accuracy by class', 'IoU': 'IoU by class'}
    if len(comparison.classes) == 2:
        # Accuracy of the background says nothing of false alarms.
        titles |= {'Precision': 'Precision by class', 'F1': 'F1 by class'}
    tables = (class_table(comparison, metric, title) for metric, title in titles.items())
    return section('', *tables, shown(recall_against_precision(comparison)))


def class_table(comparison: Comparison, metric: str, title: str) -> Table | None:
    """Tables 2 and 3: a row a class, a column a loss, averages below."""
    losses = tuple(loss for loss in comparison.losses if loss.class_means(metric).size)
    if not losses:
        return None
    share, minority = comparison.share, comparison.minority
    columns = ['class', *(['share of pixels'] if share is not None else [])]
    rows = []
    for c, name in enumerate(comparison.classes):
        row = [Cell(f'{name}{" †" if c in minority else ""}')]
        if share is not None:
            row.append(Cell(f'{share[c]:.3g}%', float(share[c])))
        rows.append((*row, *ranked(comparison, losses, (metric, c))))
    # Of two classes the mean is in the table of all.
    everything = list(range(len(comparison.classes))) if len(comparison.classes) > 2 else []
    groups = {'average': everything, 'average †': comparison.minority_group}
    for name, members in groups.items():
        if members:
            filler = [Cell('')] if share is not None else []
            cells = ranked(comparison, losses, (metric, tuple(members)))
            rows.append((Cell(name), *filler, *cells))
    note = f'Per cent. {INTERVALS} Best bold, second underlined, as seen.'
    if minority:
        note += ' † IoU under CE below 80.'
    if comparison.unseen:
        note += f' In no test image: {", ".join(comparison.unseen)}.'
    if share is not None:
        note += f' Share of the pixels of the {comparison.share_of} set.'
    return Table(title, note, (*columns, *(loss.label for loss in losses)), tuple(rows))


def recall_against_precision(comparison: Comparison) -> Plot | None:
    """A small plot a class, a point a loss; the rarest classes if there are many."""
    if not comparison.classes or not any(
        loss.class_means('Acc').size for loss in comparison.losses
    ):
        return None
    order = comparison.rarest_first[:MAX_SMALL_PLOTS]
    look = styles(comparison)
    columns = 4
    rows = -(-len(order) // columns)
    figure, axes = subplots(rows, columns, 7.2, 1.55 * rows + 0.7, sharex=True, sharey=True)
    for axis, c in zip(axes.flat, order, strict=False):
        for loss in comparison.losses:
            axis.plot(
                loss.per_class('Acc', c).mean,
                loss.per_class('Precision', c).mean,
                linestyle='none',
                markersize=7 if loss.label == 'Recall' else 5,
                label=loss.label,
                clip_on=False,
                **look[loss.label],
            )
        axis.set_title(comparison.classes[c], loc='left')
        axis.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100))
    for axis in axes.flat[len(order) :]:
        axis.set_visible(False)
    figure.supxlabel('recall (= accuracy, %)', fontsize=9)
    figure.supylabel('precision (%)', fontsize=9)
    legend(figure, 'upper center')
    which = 'classes, rarest first' if comparison.share is not None else 'classes'
    return plot(
        figure,
        comparison,
        'precision',
        f'Recall against precision of each class, the {which}. A loss that finds a class by '
        'predicting it everywhere moves right and down.',
        f'{len(order)} small scatter plots of recall and precision, one for each class; the '
        'numbers are in classes.csv.',
    )
