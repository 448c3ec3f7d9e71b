"""What a trained model says: whether it learnt, whether imbalance limits it, what is free.

"A rule of thumb for using an imbalance-oriented loss function is when the overall accuracy is
reasonably high but mean accuracy is very low" (Appendix B of the paper). The paper's only number is
its example of a data set that is too easy: over 90 per cent mean accuracy with plain cross-entropy.
The other bounds are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .advice import is_balanced

LEAST_FOUND = 5.0
EASY_MEAN_ACCURACY = 90.0
HIGH_OVERALL_ACCURACY = 80.0
LARGE_GAP = 10.0
FAR_BELOW = 20.0
MIN_CORRELATION = 0.3
MAX_NAMED = 8


class Rule(NamedTuple):
    """What the rule of thumb comes to."""

    verdict: str
    sentences: tuple[str, ...]
    limits: bool
    """Whether another loss is worth a try."""


def found_classes(accuracy: np.ndarray) -> int:
    """How many classes a model finds: those of which it has more than a few pixels right.

    Example:
        >>> found_classes(np.array([99.0, 0.2, np.nan, 40.0]))
        2
    """
    return int((accuracy > LEAST_FOUND).sum())


def has_learnt(accuracy: np.ndarray) -> bool:
    """Whether a model finds more than one class, of five or more classes more than two.

    Args:
        accuracy: Per cent of each class, (C,); NaN where the test set does not have it. Of no
            known class, the answer is yes.

    Example:
        >>> has_learnt(np.array([99.0, 0.2])), has_learnt(np.array([99.0, 30.0]))
        (False, True)
    """
    known = int((~np.isnan(accuracy)).sum())
    return not known or found_classes(accuracy) > (1 if known < 5 else 2)


def rule_of_thumb(
    overall: float,
    mean: float,
    accuracy: np.ndarray,
    share: np.ndarray | None,
    classes: Sequence[str],
) -> Rule:
    """Judge a model that was trained with cross-entropy.

    Args:
        overall: Overall accuracy, per cent.
        mean: Mean accuracy over the classes, per cent.
        accuracy: Of each class, (C,), per cent; NaN where unknown; empty if none is known.
        share: Of each class in the pixels, (C,), per cent; None if unknown.
        classes: Names.

    Example:
        >>> rule_of_thumb(95.0, 93.0, np.array([95.0, 91.0]), None, ['road', 'pole']).verdict
        'Too easy: imbalance is not the problem'
    """
    gap = overall - mean
    figures = (
        f'Under cross-entropy the overall accuracy is {overall:.1f} and the mean accuracy over '
        f'classes {mean:.1f}, a gap of {gap:.1f} points.'
    )
    named = _named(overall, accuracy, share, classes)
    if mean >= EASY_MEAN_ACCURACY:
        reason = (
            f'Mean accuracy is {EASY_MEAN_ACCURACY:g} or more already, as on Virtual KITTI 2 in '
            'the paper, where no loss did better than cross-entropy. Stay with cross-entropy.'
        )
        return Rule('Too easy: imbalance is not the problem', (figures, reason), False)
    if overall < HIGH_OVERALL_ACCURACY:
        reason = (
            f'Overall accuracy is below {HIGH_OVERALL_ACCURACY:g}, so frequent classes fail as '
            'well, as on ADE20K in the paper, where no loss did better than the others. Train '
            'longer, or with a larger or pretrained model, before changing the loss.'
        )
        verdict = 'Too difficult: imbalance is not the first problem'
        return Rule(verdict, (figures, reason, *named), False)
    if gap < LARGE_GAP:
        reason = (
            f'The gap is below {LARGE_GAP:g} points: rare classes do about as well as frequent '
            'ones.'
        )
        verdict = 'No: mean accuracy is close to overall accuracy'
        return Rule(verdict, (figures, reason, *named), False)
    correlation = _correlation(accuracy, share)
    if share is not None and is_balanced(share.tolist()):
        differ = 'the classes are about equally frequent'
    elif correlation is not None and correlation < MIN_CORRELATION:
        differ = (
            f'accuracy hardly follows frequency (rank correlation {correlation:.2f}): the classes '
            'that fail are not the rare ones'
        )
    else:
        follows = (
            ''
            if correlation is None
            else f' Accuracy follows frequency (rank correlation {correlation:.2f}).'
        )
        reason = (
            'Overall accuracy is reasonably high and mean accuracy far below it: the case for a '
            f'loss against imbalance.{follows}'
        )
        return Rule('Yes: imbalance limits this model', (figures, reason, *named), True)
    reason = (
        f'The gap is large, but {differ}, so a loss weighted by frequency looks in the wrong '
        'place. RecallLoss weighs what is missed, rare or not.'
    )
    return Rule('Difficult classes rather than rare ones', (figures, reason, *named), True)


def _correlation(accuracy: np.ndarray, share: np.ndarray | None) -> float | None:
    """Spearman's, of pixels and accuracy per class; None if either is unknown or constant."""
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


def _named(
    overall: float, accuracy: np.ndarray, share: np.ndarray | None, classes: Sequence[str]
) -> tuple[str, ...]:
    """Which classes are far below the overall accuracy, rarest first, and how far."""
    low = [c for c, value in enumerate(accuracy) if value < overall - FAR_BELOW]
    if not low:
        return ()
    if share is None:
        named = [f'{classes[c]} {accuracy[c]:.1f}' for c in low[:MAX_NAMED]]
    else:
        low.sort(key=lambda c: share[c])
        named = [
            f'{classes[c]} {accuracy[c]:.1f} ({share[c]:.2g}% of pixels)' for c in low[:MAX_NAMED]
        ]
    more = f' and {len(low) - MAX_NAMED} more' if len(low) > MAX_NAMED else ''
    return (
        f'More than {FAR_BELOW:g} points of accuracy below the overall one: {len(low)} of '
        f'{len(accuracy)} classes, {", ".join(named)}{more}.',
    )


def best_of_grid(iou: Mapping[float, float], as_is: float) -> tuple[float, str]:
    """Which value of a grid has the highest mean IoU, and what to say where that is its end.

    Args:
        iou: Mean IoU by value, that of the model as it is among them.
        as_is: The value of the model as it is, which wins a draw.

    Example:
        >>> best_of_grid({0.0: 40.0, 0.5: 44.0, 1.0: 43.0, 1.5: 41.0}, 0.0)
        (0.5, ' It is the smallest that was tested: a smaller one may gain more.')
    """
    best = max(iou, key=lambda value: (iou[value], value == as_is))
    tested = sorted(value for value in iou if value != as_is)
    ends = {'smallest': tested[0], 'largest': tested[-1]}
    found = [name for name, end in ends.items() if best == end]
    if not found or best == as_is:
        return best, ''
    if len(found) == 2:
        return best, ' It is the only one that was tested: another may gain more.'
    comparative = {'smallest': 'smaller', 'largest': 'larger'}[found[0]]
    return best, f' It is the {found[0]} that was tested: a {comparative} one may gain more.'
