"""Does imbalance limit you? The paper's rule of thumb (Appendix B), applied to the baseline.

"A rule of thumb for using an imbalance-oriented loss function is when the overall accuracy is
reasonably high but mean accuracy is very low." The paper's only number is its example of a data
set that is too easy: over 90 per cent mean accuracy with plain cross-entropy. The other bounds are
this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..blocks import OVERALL, Cell, Section, Table, Verdict, shown, spread
from ..figures import COLOURS, INK, Plot, legend, plot, styles, subplots
from ..summary import BASELINE, Comparison, Loss, Value, ranks
from .post_hoc import CURVE_LABEL, points_of, post_hoc_curve

ORDER = 10

EASY_MEAN_ACCURACY = 90.0
HIGH_OVERALL_ACCURACY = 80.0
LARGE_GAP = 10.0
FAR_BELOW = 20.0
MIN_CORRELATION = 0.3
MAX_NAMED = 8


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if comparison.classifies:
        return None
    plots = (accuracy_against_iou(comparison), gain_against_frequency(comparison))
    blocks = (diagnose(comparison), overall_table(comparison), shown(*plots))
    return Section('Does imbalance limit you?', blocks)


def diagnose(comparison: Comparison) -> Verdict:
    """Judge the baseline of a comparison."""
    baseline = comparison.baseline
    if baseline is None:
        return Verdict(
            'Unknown: no baseline',
            ('There is no run with plain cross-entropy (CE) here; the rule of thumb needs one.',),
        )
    overall, mean = baseline.metric('aAcc').mean, baseline.metric('mAcc').mean
    gap = overall - mean
    figures = (
        f'Under cross-entropy the overall accuracy is {overall:.1f} and the mean accuracy over '
        f'classes {mean:.1f}, a gap of {gap:.1f} points.'
    )
    correlation = _frequency_correlation(comparison, baseline)
    if mean >= EASY_MEAN_ACCURACY:
        verdict, reason = (
            'Too easy: imbalance is not the problem',
            (
                f'Mean accuracy is {EASY_MEAN_ACCURACY:g} or more already, as on Virtual KITTI 2 '
                'in the paper, where no loss did better than cross-entropy.',
                'Stay with cross-entropy.',
            ),
        )
    elif overall < HIGH_OVERALL_ACCURACY:
        verdict, reason = (
            'Too difficult: imbalance is not the first problem',
            (
                f'Overall accuracy is below {HIGH_OVERALL_ACCURACY:g}, so frequent classes fail as '
                'well, as on ADE20K in the paper, where no loss did better than the others.',
                'Train longer, or with a larger or pretrained model, before changing the loss.',
                *_named(comparison, baseline),
            ),
        )
    elif gap < LARGE_GAP:
        verdict, reason = (
            'No: mean accuracy is close to overall accuracy',
            (
                f'The gap is below {LARGE_GAP:g} points: rare classes do about as well as frequent '
                'ones.',
                *_named(comparison, baseline),
            ),
        )
    elif correlation is not None and correlation < MIN_CORRELATION:
        verdict, reason = (
            'Difficult classes rather than rare ones',
            (
                f'The gap is large, but accuracy hardly follows frequency (rank correlation '
                f'{correlation:.2f}): the classes that fail are not the rare ones, so a loss '
                'weighted by frequency looks in the wrong place. RecallLoss weighs what is '
                'missed, rare or not.',
                *_named(comparison, baseline),
                *_advice(comparison, baseline),
            ),
        )
    else:
        follows = (
            ''
            if correlation is None
            else f' Accuracy follows frequency (rank correlation {correlation:.2f}).'
        )
        verdict, reason = (
            'Yes: imbalance limits this model',
            (
                'Overall accuracy is reasonably high and mean accuracy far below it: the case for '
                f'a loss against imbalance.{follows}',
                *_named(comparison, baseline),
                *_advice(comparison, baseline),
            ),
        )
    return Verdict(verdict, (figures, *reason))


def _frequency_correlation(comparison: Comparison, baseline: Loss) -> float | None:
    """Spearman's, of pixels and accuracy per class; None if either is unknown or constant."""
    accuracy, share = baseline.class_means('Acc'), comparison.share
    if share is None or len(accuracy) != len(share):
        return None
    known = ~np.isnan(accuracy)
    a, b = _ranks(accuracy[known]), _ranks(share[known])
    if known.sum() < 3 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    # Ties share their mean rank.
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def _named(comparison: Comparison, baseline: Loss) -> tuple[str, ...]:
    """Which classes are far below the overall accuracy, rarest first, and how far."""
    accuracy, share = baseline.class_means('Acc'), comparison.share
    overall = baseline.metric('aAcc').mean
    low = [c for c, value in enumerate(accuracy) if value < overall - FAR_BELOW]
    if not low:
        return ()
    if share is None:
        named = [f'{comparison.classes[c]} {accuracy[c]:.1f}' for c in low[:MAX_NAMED]]
    else:
        low.sort(key=lambda c: share[c])
        named = [
            f'{comparison.classes[c]} {accuracy[c]:.1f} ({share[c]:.2g}% of pixels)'
            for c in low[:MAX_NAMED]
        ]
    more = f' and {len(low) - MAX_NAMED} more' if len(low) > MAX_NAMED else ''
    return (
        f'More than {FAR_BELOW:g} points of accuracy below the overall one: {len(low)} of '
        f'{len(accuracy)} classes, {", ".join(named)}{more}.',
    )


def _advice(comparison: Comparison, baseline: Loss) -> tuple[str, ...]:
    """Of the losses that raise mean accuracy the one with most IoU, and the one that finds most.

    Mean accuracy alone would name a loss that buys recall with false positives, however many.
    """
    others = [loss for loss in comparison.losses if loss is not baseline]
    if not others:
        return ('Try RecallLoss first: add configs/_base_/losses/recall.py to the config.',)
    floor = baseline.metric('mAcc').mean
    better = [loss for loss in others if loss.metric('mAcc').mean > floor]
    if not better:
        return ('No loss here raises mean accuracy.',)
    best = max(better, key=lambda loss: loss.metric('mIoU').mean)
    finder = max(better, key=lambda loss: loss.metric('mAcc').mean)
    advice = (
        f'Try {best.label} first, which has the highest mIoU here of the losses that raise mean '
        f'accuracy: {_changes(best, baseline)}.'
    )
    if finder is best:
        return (advice,)
    return advice, f'{finder.label} finds most: {_changes(finder, baseline)}.'


def _changes(loss: Loss, baseline: Loss) -> str:
    changes = (
        f'{name} {loss.metric(metric).mean - baseline.metric(metric).mean:+.1f}'
        for metric, name in (
            ('mAcc', 'mean accuracy'),
            ('mIoU', 'mIoU'),
            ('aAcc', 'overall accuracy'),
        )
    )
    return ', '.join(changes)


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


def accuracy_against_iou(comparison: Comparison) -> Plot:
    """Figures 2 and 3: a point a loss, error bars over seeds; the baseline's post-hoc curve."""
    figure, axes = subplots(1, 1, 6.4, 3.8)
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
    legend(figure, 'right center', columns=1)
    points = ', '.join(
        f'{loss.label} {loss.metric("mIoU").mean:.1f} and {loss.metric("mAcc").mean:.1f}'
        for loss in comparison.losses
    )
    return plot(
        figure,
        comparison,
        'scatter',
        caption,
        f'Scatter plot of mean IoU and mean accuracy in per cent: {points}.{curve_in_words}',
    )


def gain_against_frequency(comparison: Comparison) -> Plot | None:
    """What each loss gains over the baseline on each class, by the class's share of pixels."""
    base, share = comparison.baseline, comparison.share
    others = [loss for loss in comparison.losses if loss is not base]
    if base is None or share is None or not others:
        return None
    look = styles(comparison)
    figure, axes = subplots(1, 2, 7.2, 2.9 + 0.07 * len(others))
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
    legend(figure, 'lower center')
    rarest = int(np.argmin(np.where(share > 0, share, np.inf)))
    gains = ', '.join(
        f'{loss.label} {loss.class_means("Acc")[rarest] - base.class_means("Acc")[rarest]:+.1f}'
        for loss in others
    )
    return plot(
        figure,
        comparison,
        'gain',
        'Gain over cross-entropy on each class, against how frequent the class is.',
        f'Two scatter plots of gain against class share. Gain in accuracy on the rarest class, '
        f'{comparison.classes[rarest]}: {gains} points.',
    )
