"""Does imbalance limit you? What was learnt, what is free, and what the losses add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...diagnosis.trained import rule_of_thumb
from ...statistics import CONTRADICTED, NOT_SETTLED, SUPPORTED, Estimate
from ..bases import PREFIX, to_paste
from ..blocks import INTERVALS, OVERALL, Cell, Section, Table, Verdict, estimated, shown
from ..figures import INK, Plot, bars, legend, plot, span, styles, subplots
from ..judge import Difference, evidence, interval_text, judge, maybe_best
from ..learnt import idle_runs, nothing_learnt
from ..summary import Comparison, Loss, Metric, ranks
from .post_hoc import (
    FreeOption,
    curve_label,
    free_option,
    offsets,
    option_of,
    points_of,
    post_hoc_curve,
    untested,
)

ORDER = 10
MAYBE_BEST = '≈'


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if comparison.classifies:
        return None
    plots = (accuracy_against_iou(comparison), gain_against_frequency(comparison))
    blocks = (diagnose(comparison), overall_table(comparison), shown(*plots))
    return Section('Does imbalance limit you?', blocks)


def diagnose(comparison: Comparison) -> Verdict:
    """What a user can have: whether anything was learnt, what is free, and then the losses."""
    baseline, free = comparison.baseline, free_option(comparison)
    nothing = nothing_learnt(comparison)
    if nothing is not None and not (free and free.finds_more):
        return nothing
    warned = idle_runs(comparison)
    if baseline is None:
        reason = 'There is no run with plain cross-entropy (CE) here; the rule of thumb needs one.'
        return Verdict('Unknown: no baseline', (reason, *warned))
    rule = rule_of_thumb(
        baseline.metric('aAcc').mean,
        baseline.metric('mAcc').mean,
        baseline.class_means('Acc'),
        comparison.share,
        comparison.classes,
    )
    losses = _losses(comparison, baseline, free) if rule.limits else ()
    for_free = free.sentence if free else untested(baseline)
    return Verdict(rule.verdict, (*warned, *rule.sentences, for_free, *offsets(baseline), *losses))


def _losses(comparison: Comparison, baseline: Loss, free: FreeOption | None) -> tuple[str, ...]:
    """Those that these runs tell from the baseline, and how to train with them."""
    others = [loss for loss in comparison.losses if loss is not baseline]
    if not others:
        return (f"Try RecallLoss first: _base_ = ['your_config.py', '{PREFIX}recall.py'].",)
    judged = judge(comparison, [[Difference('mAcc', loss, baseline)] for loss in others])
    above = [j.difference.first for j in judged if j.outcome == SUPPORTED]
    if not above:
        best = max(judged, key=lambda one: one.estimate.mean)
        if all(one.outcome == CONTRADICTED for one in judged):
            return ('No loss here raises mean accuracy.',)
        return (
            'These runs tell no loss from cross-entropy in mean accuracy. The largest gain that is '
            f'seen: {evidence(best)}{_lines(best.difference.first)}',
        )
    best_iou = max(above, key=lambda loss: loss.metric('mIoU').mean)
    finder = max(above, key=lambda loss: loss.metric('mAcc').mean)
    beyond = '' if free is None else free.against(best_iou)
    sentences = [
        f'Try {best_iou.label} first, which has the highest mIoU of the losses that are shown to '
        f'raise mean accuracy: {_changes(comparison, best_iou, baseline)}.{beyond}'
        f'{_lines(best_iou)}'
    ]
    if finder is not best_iou:
        changes = _changes(comparison, finder, baseline)
        sentences.append(f'{finder.label} finds most: {changes}.{_lines(finder)}')
    rest = [loss.label for loss in above if loss not in (best_iou, finder)]
    if rest:
        sentences.append(f'Shown to raise mean accuracy, too: {", ".join(rest)}.')
    open_ones = [j.difference.first.label for j in judged if j.outcome == NOT_SETTLED]
    if open_ones:
        sentences.append(f'Not settled: {", ".join(open_ones)}.')
    return tuple(sentences)


def _changes(comparison: Comparison, loss: Loss, baseline: Loss) -> str:
    return ', '.join(
        f'{name} {interval_text(comparison.difference(loss, baseline, metric), 1)}'
        for metric, name in (('mAcc', 'mean accuracy'), ('mIoU', 'mIoU'), ('aAcc', 'overall'))
    )


def _lines(loss: Loss) -> str:
    lines = to_paste(loss)
    return f' In a config: {lines}.' if lines else ''


def overall_table(comparison: Comparison) -> Table:
    """A row a loss: what is averaged over classes, and over the minority classes."""
    measures: dict[str, Metric] = {title: name for name, title in OVERALL.items()}
    note = 'Per cent. '
    minority = comparison.minority_group
    if minority:
        added: dict[str, Metric] = {
            f'minority {title}': (name, tuple(minority))
            for name, title in (('Acc', 'accuracy'), ('IoU', 'IoU'))
        }
        items = list(measures.items())
        measures = dict([*items[:3], *added.items(), *items[3:]])
        named = ', '.join(comparison.classes[c] for c in minority)
        note += f'Minority: classes with IoU under CE below 80 ({named}). '
    note += (
        f'{INTERVALS} Best bold, second underlined, as seen; {MAYBE_BEST}: these runs do not tell '
        'it from the best. The true best is unmarked in at most 5 columns of 100.'
    )
    columns: dict[str, list[Estimate]] = {}
    for title, metric in measures.items():
        found = [comparison.estimate(loss, metric) for loss in comparison.losses]
        # Work directories of stock mmseg do not have every metric.
        if any(one.seeds for one in found):
            columns[title] = found
    if len(comparison.minority) == len(comparison.classes):
        note += ' All classes are minority classes: their means are those of all.'
    of_images, of_classes = (columns.get(OVERALL[name]) for name in ('mIoU_I', 'mIoU_C'))
    if of_images is not None and of_images == of_classes:
        note += f' {OVERALL["mIoU_C"]} is {OVERALL["mIoU_I"]}: each test image has every class.'
        del columns[OVERALL['mIoU_C']]
    cells = [
        estimated_column(comparison, measures[title], found) for title, found in columns.items()
    ]
    rows = [
        (Cell(loss.label), Cell(str(len(loss.runs)), len(loss.runs)), *of_loss)
        for loss, *of_loss in zip(comparison.losses, *cells, strict=True)
    ]
    return Table('All classes', note, ('loss', 'seeds', *columns), tuple(rows))


def estimated_column(comparison: Comparison, metric: Metric, found: list[Estimate]) -> list[Cell]:
    """A cell a loss; of several losses, those that may be the best are marked."""
    means = {loss.label: one.mean for loss, one in zip(comparison.losses, found, strict=True)}
    best = ranks(means)
    maybe = maybe_best(comparison, comparison.losses, metric) if best else set()
    cells = []
    for label, one in zip(means, found, strict=True):
        cell = estimated(one, best.get(label, ''))
        is_open = label in maybe and best.get(label) != 'best'
        cells.append(replace(cell, text=f'{cell.text} {MAYBE_BEST}') if is_open else cell)
    return cells


def accuracy_against_iou(comparison: Comparison) -> Plot:
    """Figures 2 and 3: a point a loss, error bars over seeds; the baseline's post-hoc curve."""
    figure, axes = subplots(1, 1, 6.4, 3.8)
    (axis,) = axes.flat
    look = styles(comparison)
    found = []
    for loss in comparison.losses:
        x, y = (comparison.estimate(loss, name) for name in ('mIoU', 'mAcc'))
        found.append((x, y))
        axis.errorbar(
            x.mean,
            y.mean,
            xerr=bars([x]),
            yerr=bars([y]),
            label=loss.label,
            linestyle='none',
            markersize=8 if loss.label == 'Recall' else 6,
            elinewidth=1,
            **look[loss.label],
        )
    caption = (
        'Mean accuracy against mean IoU. A point a loss, bars: intervals of 95%, cut where they '
        f'are far longer than the losses are apart. {comparison.basis}'
    )
    curve = post_hoc_curve(comparison)
    curve_in_words = ''
    accuracies: tuple[float, ...] = ()
    ious: tuple[float, ...] = ()
    base = comparison.baseline
    if curve is not None and base is not None:
        label, option = curve_label(base), option_of(base)[0]
        accuracies, ious = zip(*points_of(curve), strict=True)
        # With errorbar, as the losses: a line alone would come first in the legend.
        axis.errorbar(
            ious,
            accuracies,
            color=look[base.label]['color'],
            linewidth=1.2,
            marker='.',
            markersize=5,
            label=label,
        )
        values = ', '.join(f'{value:g}' for value in curve)
        how = 'logits adjusted post hoc' if option == 'tau' else 'other thresholds'
        caption += f' The line: the models of {base.label} with {how}, {option} = {values}.'
        ends = ' to '.join(
            f'{iou:.1f} and {accuracy:.1f}'
            for accuracy, iou in (points_of(curve)[i] for i in (0, -1))
        )
        curve_in_words = f' {label}: a line from {ends}.'
    axis.set(xlim=span([x for x, _ in found], ious), ylim=span([y for _, y in found], accuracies))
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
    others = [
        loss for loss in comparison.losses if loss is not base and loss.class_means('IoU').size
    ]
    if base is None or share is None or not others or not base.class_means('IoU').size:
        return None
    look = styles(comparison)
    figure, axes = subplots(1, 2, 7.2, 2.9 + 0.07 * len(others))
    for axis, metric, title in zip(axes.flat, ('Acc', 'IoU'), ('accuracy', 'IoU'), strict=True):
        seen: list[Estimate] = []
        for loss in others:
            found = [comparison.difference(loss, base, (metric, c)) for c in range(len(share))]
            seen += found
            axis.errorbar(
                share,
                [gain.mean for gain in found],
                yerr=bars(found),
                linestyle='none',
                elinewidth=0.6,
                markersize=7 if loss.label == 'Recall' else 4.5,
                alpha=1 if loss.label == 'Recall' else 0.65,
                zorder=3 if loss.label == 'Recall' else 2,
                label=loss.label,
                **look[loss.label],
            )
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_ylim(span(seen))
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
        'Gain over cross-entropy on each class, against how frequent the class is; bars: intervals '
        f'of 95%, cut where they are far longer than the gains. {comparison.basis}',
        f'Two scatter plots of gain against class share. Gain in accuracy on the rarest class, '
        f'{comparison.classes[rarest]}: {gains} points.',
    )
