"""Does imbalance limit you? The paper's rule of thumb (Appendix B), applied to the baseline.

"A rule of thumb for using an imbalance-oriented loss function is when the overall accuracy is
reasonably high but mean accuracy is very low." The paper's only number is its example of a data
set that is too easy: over 90 per cent mean accuracy with plain cross-entropy. The other bounds are
this project's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from ...statistics import CONTRADICTED, NOT_SETTLED, SUPPORTED, estimate
from ..bases import bases
from ..blocks import OVERALL, Cell, Section, Table, Verdict, shown, spread
from ..figures import COLOURS, INK, Plot, legend, plot, styles, subplots
from ..judge import Difference, evidence, interval_text, judge
from ..summary import BASELINE, Comparison, Loss, Value, ranks
from .post_hoc import CURVE_LABEL, curves_by_seed, points_of, post_hoc_curve

ORDER = 10

EASY_MEAN_ACCURACY = 90.0
HIGH_OVERALL_ACCURACY = 80.0
LARGE_GAP = 10.0
FAR_BELOW = 20.0
MIN_CORRELATION = 0.3
LEAST_FOUND = 1.0
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
    if not any(_learnt(loss) for loss in comparison.losses):
        found = int((baseline.class_means('Acc') > LEAST_FOUND).sum())
        return Verdict(
            'Nothing was learnt',
            (
                f'No loss here finds more than {LEAST_FOUND:g}% of more than a class or two '
                f'(cross-entropy: of {found} of {len(comparison.classes)}), so these runs say '
                'nothing of losses. Look at the labels and the order of the classes first; then '
                'train longer, from pretrained weights or with another learning rate.',
            ),
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
    """What is free first, then the losses that these runs tell from the baseline."""
    free = _free_option(comparison)
    others = [loss for loss in comparison.losses if loss is not baseline]
    if not others:
        first = 'Try RecallLoss first: add configs/_base_/losses/recall.py to the config.'
        return (*free, first)
    judged = judge(comparison, [[Difference('mAcc', loss, baseline)] for loss in others])
    above = [j.difference.first for j in judged if j.outcome == SUPPORTED]
    if not above:
        best = max(judged, key=lambda one: one.estimate.mean)
        if all(one.outcome == CONTRADICTED for one in judged):
            return (*free, 'No loss here raises mean accuracy.')
        return (
            *free,
            'These runs tell no loss from cross-entropy in mean accuracy. The largest gain that is '
            f'seen: {evidence(best, len(others))}',
        )
    best = max(above, key=lambda loss: loss.metric('mIoU').mean)
    finder = max(above, key=lambda loss: loss.metric('mAcc').mean)
    advice = (
        f'Try {best.label} first, which has the highest mIoU of the losses that are shown to raise '
        f'mean accuracy: {_changes(comparison, best, baseline)}.{_base_of(best)}'
    )
    rest = [j.difference.first.label for j in judged if j.outcome == NOT_SETTLED]
    more = () if not rest else (f'Not settled: {", ".join(rest)}.',)
    if finder is best:
        return (*free, advice, *more)
    found = f'{finder.label} finds most: {_changes(comparison, finder, baseline)}.'
    return (*free, advice, found, *more)


def _free_option(comparison: Comparison) -> tuple[str, ...]:
    """The tau with the highest mean IoU, by the seeds of the baseline that were tested with it."""
    curve, curves = post_hoc_curve(comparison), curves_by_seed(comparison)
    if curve is None:
        return ()
    taus = list(curve)
    best = max(taus, key=lambda tau: curve[tau]['mIoU'].mean)
    if best == 0:
        return ("Adjusting cross-entropy's logits after training gains no mean IoU here.",)
    i = taus.index(best)
    gains = [
        interval_text(estimate(np.array([p[i][k] - p[0][k] for p in curves.values()])), 1)
        for k in (0, 1)
    ]
    end = (
        ' It is the end of what was tested: a larger one may gain more.'
        if i == len(taus) - 1
        else ''
    )
    if i == 1:
        end = ' It is the smallest that was tested: a smaller one may gain more.'
    return (
        f'Free, without training: the logits of cross-entropy adjusted with tau = {best:g}, mean '
        f'accuracy {gains[0]}, mIoU {gains[1]}; '
        f'tools/test.py with --cfg-options logit_adjustment.tau={best:g}.{end}',
    )


def _changes(comparison: Comparison, loss: Loss, baseline: Loss) -> str:
    metrics = {'mAcc': 'mean accuracy', 'mIoU': 'mIoU', 'aAcc': 'overall accuracy'}
    return ', '.join(
        f'{name} {interval_text(comparison.difference(loss, baseline, metric), 1)}'
        for metric, name in metrics.items()
    )


def _base_of(loss: Loss) -> str:
    """The line to paste; '' where no base of this repository has the loss."""
    base = bases().get(re.sub(r' \(.*', '', loss.label))
    return '' if base is None else f" In a config: _base_ = ['your_config.py', '{base}']."


def _learnt(loss: Loss) -> bool:
    """Whether a model predicts more than a class or two, of those that there are."""
    accuracy = loss.class_means('Acc')
    found = int((accuracy > LEAST_FOUND).sum())
    return not len(accuracy) or found > max(1, len(accuracy) // 5)


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
