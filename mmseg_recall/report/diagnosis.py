"""Does imbalance limit you? The paper's rule of thumb (Appendix B), applied to the baseline.

"A rule of thumb for using an imbalance-oriented loss function is when the overall accuracy is
reasonably high but mean accuracy is very low." The paper's only number is its example of a data
set that is too easy: over 90 per cent mean accuracy with plain cross-entropy. The other bounds are
this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .summary import Comparison, Loss

EASY_MEAN_ACCURACY = 90.0
HIGH_OVERALL_ACCURACY = 80.0
LARGE_GAP = 10.0
FAR_BELOW = 20.0
MIN_CORRELATION = 0.3
MAX_NAMED = 8


@dataclass(frozen=True)
class Diagnosis:
    """Verdict in a few words, and the sentences that give its reason, figures and advice."""

    verdict: str
    sentences: tuple[str, ...]


def diagnose(comparison: Comparison) -> Diagnosis:
    """Judge the baseline of a comparison."""
    baseline = comparison.baseline
    if baseline is None:
        return Diagnosis(
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
    return Diagnosis(verdict, (figures, *reason))


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
