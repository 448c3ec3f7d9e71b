"""The plots, as SVG text that follows the page's colours.

Ink and grid are drawn in two marker colours, which are replaced afterwards: by CSS variables for
the page (light and dark), by fixed colours on white for the files that Markdown shows.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from .curves import SMOOTHING_SHARE, logged, smoothed, weight_shares
from .post_hoc import CURVE_LABEL, points_of, post_hoc_curve
from .summary import BASELINE, Comparison, Loss
from .tables import OVERALL
from .training_length import RANKED, TrainingLength

INK, GRID = '#010203', '#040506'
MAX_CURVES = 12
MAX_SMALL_PLOTS = 20
MAX_SHARES = 4
MAX_LAYERS_NAMED = 20
MAX_TITLE = 32
MAX_LABEL = 30
LINE = 80
MIN_SCALE = 0.6

COLOURS = {'CE': '#7d8590', 'Recall': '#d64550'}
OTHER_COLOURS = (
    '#2f81c7',
    '#e08a00',
    '#1f9e89',
    '#9a5bd0',
    '#5d9732',
    '#c9529b',
    '#b08d57',
    '#00a0c6',
    '#8c6d9e',
    '#6f7f2f',
)
# Seen on white and on dark alike, which a ramp through yellow is not.
RAMP = ('#b3202f', '#e05a4e', '#e08a00', '#5d9732', '#1f9e89', '#2f81c7', '#7a5bd0')
MARKERS = 'osD^vPX<>*hpd'

STYLE = {
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.titlesize': 9,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'figure.facecolor': 'none',
    'axes.facecolor': 'none',
    'savefig.transparent': True,
}


@dataclass(frozen=True)
class Plot:
    """A plot: file name, heading, what it shows for those who cannot see it, and SVG."""

    name: str
    caption: str
    alt: str
    svg: str

    @property
    def inline(self) -> str:
        """For the page: scales with it and takes its colours."""
        svg = self.svg[self.svg.index('<svg') :].replace(INK, 'currentColor')
        svg = svg.replace(GRID, 'var(--grid)')
        # Those that matplotlib gives to every group would be double on a page of several plots.
        used = set(re.findall(r'#([\w.-]+)', svg))
        svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else '', svg)
        svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)
        width = float(re.search(r'<svg[^>]*? width="([0-9.]+)pt"', svg)[1])
        # Below the minimum its text could not be read: then it scrolls.
        style = f'max-width:{width:.0f}pt;min-width:{MIN_SCALE * width:.0f}pt'
        attributes = f'role="img" aria-label="{escape(self.alt)}" style="{style}"'
        return re.sub(
            r'<svg([^>]*?) width="[^"]*"', lambda m: f'<svg{m[1]} {attributes}', svg, count=1
        )

    @property
    def file(self) -> str:
        """For a file: dark ink on white."""
        svg = self.svg.replace(INK, '#1f2328').replace(GRID, '#d8dde3')
        background = '<rect width="100%" height="100%" fill="#fff"/>'
        return re.sub(r'(<svg[^>]*?>)', rf'\1{background}', svg, count=1)


def _plot(figure: Figure, name: str, caption: str, alt: str) -> Plot:
    buffer = io.StringIO()
    # A salt of its own: the ids of all plots share one page.
    with matplotlib.rc_context({'svg.hashsalt': name}):
        figure.savefig(
            buffer, format='svg', metadata={'Date': None, 'Creator': None}, bbox_inches='tight'
        )
    # Hundredths of a point cannot be seen, and a page has all of its plots inside.
    svg = re.sub(r'(\d\.\d\d)\d+', r'\1', buffer.getvalue())
    return Plot(name, caption, alt, svg)


def _subplots(
    rows: int, columns: int, width: float, height: float, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _legend(figure: Figure, place: str, columns: int = 4) -> None:
    """Outside the axes; labels with options get lines of their own and fewer columns."""
    handles, labels = next(
        (handles, labels)
        for handles, labels in (axis.get_legend_handles_labels() for axis in figure.axes)
        if labels
    )
    width = min(max(map(len, labels)), MAX_LABEL)
    figure.legend(
        handles,
        [fill(label, MAX_LABEL) for label in labels],
        loc=f'outside {place}',
        ncols=min(columns, LINE // width),
    )


def styles(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Colour and marker of each loss, the same in every plot."""
    free = iter(OTHER_COLOURS * len(comparison.losses))
    return {
        loss.label: {
            'color': COLOURS.get(loss.label) or next(free),
            'marker': MARKERS[i % len(MARKERS)],
        }
        for i, loss in enumerate(comparison.losses)
    }


def accuracy_against_iou(comparison: Comparison, name: str) -> Plot:
    """Figures 2 and 3: a point a loss, error bars over seeds; the baseline's post-hoc curve."""
    figure, axes = _subplots(1, 1, 6.4, 3.8)
    (axis,) = axes.flat
    look = styles(comparison)
    for loss in comparison.losses:
        x, y = loss.metric('mIoU'), loss.metric('mAcc')
        axis.errorbar(
            x.mean,
            y.mean,
            xerr=np.nan_to_num(x.std),
            yerr=np.nan_to_num(y.std),
            label=loss.label,
            linestyle='none',
            markersize=8 if loss.label == 'Recall' else 6,
            elinewidth=1,
            **look[loss.label],
        )
    caption = 'Mean accuracy against mean IoU. A point a loss, bars: standard deviation over seeds.'
    curve = post_hoc_curve(comparison)
    curve_in_words = ''
    if curve is not None:
        accuracies, ious = zip(*points_of(curve), strict=True)
        # With errorbar, as the losses: a line alone would come first in the legend.
        axis.errorbar(
            ious,
            accuracies,
            color=COLOURS[BASELINE],
            linewidth=1.2,
            marker='.',
            markersize=5,
            label=CURVE_LABEL,
        )
        taus = ', '.join(f'{tau:g}' for tau in curve)
        caption += f' The line: the models of CE with logits adjusted post hoc, tau = {taus}.'
        ends = ' to '.join(
            f'{iou:.1f} and {accuracy:.1f}'
            for accuracy, iou in (points_of(curve)[i] for i in (0, -1))
        )
        curve_in_words = f' {CURVE_LABEL}: a line from {ends}.'
    axis.margins(0.12)
    axis.set_xlabel('mean IoU (%)')
    axis.set_ylabel('mean accuracy (%)')
    _legend(figure, 'right center', columns=1)
    points = ', '.join(
        f'{loss.label} {loss.metric("mIoU").mean:.1f} and {loss.metric("mAcc").mean:.1f}'
        for loss in comparison.losses
    )
    return _plot(
        figure,
        name,
        caption,
        f'Scatter plot of mean IoU and mean accuracy in per cent: {points}.{curve_in_words}',
    )


def gain_against_frequency(comparison: Comparison, name: str) -> Plot | None:
    """What each loss gains over the baseline on each class, by the class's share of pixels."""
    base, share = comparison.baseline, comparison.share
    others = [loss for loss in comparison.losses if loss is not base]
    if base is None or share is None or not others:
        return None
    look = styles(comparison)
    figure, axes = _subplots(1, 2, 7.2, 2.9 + 0.07 * len(others))
    for axis, metric, title in zip(axes.flat, ('Acc', 'IoU'), ('accuracy', 'IoU'), strict=True):
        for loss in others:
            axis.plot(
                share,
                loss.class_means(metric) - base.class_means(metric),
                linestyle='none',
                markersize=7 if loss.label == 'Recall' else 4.5,
                alpha=1 if loss.label == 'Recall' else 0.65,
                zorder=3 if loss.label == 'Recall' else 2,
                label=loss.label if metric == 'Acc' else None,
                **look[loss.label],
            )
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_xscale('log')
        axis.xaxis.set_major_formatter('{x:g}')
        axis.set_xlabel(f'share of {comparison.share_of} pixels (%, log)')
        axis.set_title(f'gain in {title} (points)', loc='left')
    _legend(figure, 'lower center')
    rarest = int(np.argmin(np.where(share > 0, share, np.inf)))
    gains = ', '.join(
        f'{loss.label} {loss.class_means("Acc")[rarest] - base.class_means("Acc")[rarest]:+.1f}'
        for loss in others
    )
    return _plot(
        figure,
        name,
        'Gain over cross-entropy on each class, against how frequent the class is.',
        f'Two scatter plots of gain against class share. Gain in accuracy on the rarest class, '
        f'{comparison.classes[rarest]}: {gains} points.',
    )


def recall_against_precision(comparison: Comparison, name: str) -> Plot | None:
    """A small plot a class, a point a loss; the rarest classes if there are many."""
    number = len(comparison.classes)
    if not number or not any(loss.class_means('Acc').size for loss in comparison.losses):
        return None
    order = list(range(number))
    if comparison.share is not None:
        order.sort(key=lambda c: comparison.share[c])
    order = order[:MAX_SMALL_PLOTS]
    look = styles(comparison)
    columns = 4
    rows = -(-len(order) // columns)
    figure, axes = _subplots(rows, columns, 7.2, 1.55 * rows + 0.7, sharex=True, sharey=True)
    for axis, c in zip(axes.flat, order, strict=False):
        for loss in comparison.losses:
            axis.plot(
                loss.per_class('Acc', c).mean,
                loss.per_class('Precision', c).mean,
                linestyle='none',
                markersize=7 if loss.label == 'Recall' else 5,
                label=loss.label if c == order[0] else None,
                clip_on=False,
                **look[loss.label],
            )
        axis.set_title(comparison.classes[c], loc='left')
        axis.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100))
    for axis in axes.flat[len(order) :]:
        axis.set_visible(False)
    figure.supxlabel('recall (= accuracy, %)', fontsize=9)
    figure.supylabel('precision (%)', fontsize=9)
    _legend(figure, 'upper center')
    which = 'classes, rarest first' if comparison.share is not None else 'classes'
    return _plot(
        figure,
        name,
        f'Recall against precision of each class, the {which}. A loss that finds a class by '
        'predicting it everywhere moves right and down.',
        f'{len(order)} small scatter plots of recall and precision, one for each class; the '
        'numbers are in classes.csv.',
    )


def weight_curves(comparison: Comparison, name: str) -> Plot | None:
    """Figure 4: normalised class weights of focal and recall loss over iterations, and ratio."""
    curves = {
        title: _normalised(comparison.loss(label), comparison.classes)
        for title, label in (('focal weight', 'SoftmaxFocal'), ('recall weight', 'Recall'))
    }
    curves = {title: found for title, found in curves.items() if found is not None}
    if not curves:
        return None
    if len(curves) == 2:
        (steps, focal), (steps_of_recall, recall) = curves.values()
        if steps == steps_of_recall:
            with np.errstate(divide='ignore', invalid='ignore'):
                curves['ratio recall / focal'] = (steps, recall / focal)
    order = _extremes(comparison)
    ramp = LinearSegmentedColormap.from_list('rare to frequent', RAMP)
    colours = ramp(np.linspace(0, 1, len(order)))
    figure, axes = _subplots(1, len(curves), 2.6 * len(curves) + 0.4, 3.6)
    for axis, (title, (steps, values)) in zip(axes.flat, curves.items(), strict=True):
        for colour, c in zip(colours, order, strict=True):
            label = comparison.classes[c] if axis is axes.flat[0] else None
            axis.plot(steps, values[:, c], color=colour, linewidth=1.3, label=label)
        axis.set_title(title, loc='left')
        axis.set_xlabel('iteration')
    meaning = ''
    if 'ratio recall / focal' in curves:
        axes.flat[-1].axhline(1, color=INK, linewidth=0.8)
        meaning = (
            ' Above 1 in the ratio, recall loss gives a class more of its attention than focal '
            'loss does.'
        )
    _legend(figure, 'lower center')
    return _plot(
        figure,
        name,
        'Class weights over the iterations, normalised to sum 1 over the classes, mean over '
        f'seeds, smoothed over {SMOOTHING_SHARE:.0%} of the run; rare classes warm, frequent '
        f'ones cool.{meaning}',
        'Line plots over iterations, a line a class: ' + ', '.join(curves) + '.',
    )


def shares_over_iterations(comparison: Comparison, name: str) -> Plot | None:
    """How much of the loss each class gets, of the first few that ``weight_shares`` gives."""
    classes = comparison.classes
    shares = dict(list(weight_shares(comparison).items())[:MAX_SHARES])
    if not shares:
        return None
    order = list(range(len(classes)))
    if comparison.share is not None:
        order.sort(key=lambda c: comparison.share[c])
    # Every class has a layer, but a legend of 150 has no room.
    named = order if len(order) <= MAX_LAYERS_NAMED else _extremes(comparison)
    ramp = LinearSegmentedColormap.from_list('rare to frequent', RAMP)
    colours = ramp(np.linspace(0, 1, len(order)))
    columns = len(shares) if len(shares) < 4 else 2
    rows = -(-len(shares) // columns)
    figure, axes = _subplots(
        rows, columns, 2.6 * columns + 0.4, 2.4 * rows + 0.9, sharex=True, sharey=True
    )
    for axis, (label, (steps, values)) in zip(axes.flat, shares.items(), strict=True):
        axis.stackplot(
            steps,
            100 * values[:, order].T,
            colors=colours,
            labels=[classes[c] if c in named else '' for c in order] if label == BASELINE else (),
        )
        axis.set_title(fill(label, MAX_TITLE), loc='left')
        axis.margins(0)
    for axis in axes[-1]:
        axis.set_xlabel('iteration')
    figure.supylabel('share of the weight (%)', fontsize=9)
    _legend(figure, 'lower center')
    rarest = order[0]
    ends = ', '.join(
        f'{label} {100 * values[-1, rarest]:.2g}%' for label, (_, values) in shares.items()
    )
    return _plot(
        figure,
        name,
        'How much of the loss each class gets over the iterations: its weight times its share of '
        "the batch's pixels, normalised to sum 1 over the classes (under CE the pixels alone), "
        f'mean over seeds, smoothed over {SMOOTHING_SHARE:.0%} of the run; rare classes warm, '
        'frequent ones cool.',
        f'Stacked areas over iterations, a panel a loss, a layer a class. At the end '
        f'{classes[rarest]}, the rarest class, gets: {ends}.',
    )


def metrics_against_length(lengths: TrainingLength, comparison: Comparison, name: str) -> Plot:
    """A line a loss over the lengths of training, bars over seeds; in the comparison's colours."""
    look = styles(comparison)
    steps = list(lengths.comparisons)
    with matplotlib.rc_context(STYLE):
        figure, axes = _subplots(1, len(RANKED), 7.2, 3.2)
        for axis, metric in zip(axes.flat, RANKED, strict=True):
            for label in lengths.losses:
                values = [c.loss(label).metric(metric) for c in lengths.comparisons.values()]
                axis.errorbar(
                    steps,
                    [value.mean for value in values],
                    yerr=np.nan_to_num([value.std for value in values]),
                    label=label if metric == RANKED[0] else None,
                    linewidth=1.2,
                    markersize=5,
                    elinewidth=1,
                    **look[label],
                )
            axis.set_xscale('log')
            axis.set_xticks(steps, [str(n) for n in steps])
            axis.minorticks_off()
            axis.set_xlabel(f'{lengths.table.columns[1]} (log)')
            axis.set_title(f'{OVERALL[metric]} (%)', loc='left')
        _legend(figure, 'lower center')
        shortest, *_, longest = lengths.comparisons.values()
        ends = ', '.join(
            f'{label} {shortest.loss(label).metric("mIoU").mean:.1f} to '
            f'{longest.loss(label).metric("mIoU").mean:.1f}'
            for label in lengths.losses
        )
        return _plot(
            figure,
            name,
            'What longer training brings. Bars: standard deviation over seeds.',
            'Two line plots over the length of the training. Mean IoU from the shortest to the '
            f'longest: {ends}.',
        )


def _extremes(comparison: Comparison) -> list[int]:
    """Classes to draw, rarest first; the rarest and the most frequent half if there are many."""
    order = list(range(len(comparison.classes)))
    if comparison.share is not None:
        order.sort(key=lambda c: comparison.share[c])
    half = MAX_CURVES // 2
    return order if len(order) <= MAX_CURVES else order[:half] + order[-half:]


def _normalised(loss: Loss | None, classes: tuple[str, ...]) -> tuple[list[int], np.ndarray] | None:
    """Steps, and weights (steps, C) that sum to 1: mean over seeds, smoothed."""
    found = logged(loss, classes, 'weight') if loss is not None else None
    if found is None:
        return None
    steps, (weights,) = found
    smooth = smoothed(weights)
    with np.errstate(invalid='ignore', divide='ignore'):
        return steps, smooth / np.nansum(smooth, axis=1, keepdims=True)


def all_plots(comparison: Comparison, number: int) -> dict[str, Plot]:
    """Every plot that the runs allow, by its place in the page."""
    makers = {
        'scatter': accuracy_against_iou,
        'gain': gain_against_frequency,
        'precision': recall_against_precision,
        'weights': weight_curves,
        'shares': shares_over_iterations,
    }
    with matplotlib.rc_context(STYLE):
        plots = {key: make(comparison, f'{key}-{number}') for key, make in makers.items()}
    return {key: plot for key, plot in plots.items() if plot is not None}
