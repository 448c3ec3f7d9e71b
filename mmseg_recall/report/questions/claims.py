"""The orderings that the paper claims, tested on the runs at hand.

The spread of a difference between two losses is the sum of their standard deviations over seeds.
"""

from __future__ import annotations

from collections.abc import Callable

from ..blocks import Claim, Claims, Section
from ..paper import PAPER_NAMES
from ..summary import BASELINE, Comparison, Loss
from .classifiers import method

ORDER = 50
BALANCED = ('InverseFrequency', 'ClassBalanced')
IOU_TOLERANCE = 1.0
CLOSE = 1.0


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    """Every claim, in the order of the paper."""
    claims = _shot_claims(comparison) if comparison.classifies else _loss_claims(comparison)
    return Section("The paper's claims on these runs", (Claims(tuple(claims)),))


def _shot_claims(comparison: Comparison) -> list[Claim]:
    ce, sdn_ce, sdn_recall = (
        method(comparison, name) for name in (BASELINE, 'SDN (CE)', 'SDN (Recall)')
    )
    pairs = (('SDN (Recall)', sdn_recall, 'SDN (CE)', sdn_ce), ('SDN (CE)', sdn_ce, BASELINE, ce))
    return [
        _pair(
            f'{name} is above {base_name} in {words} accuracy by more than the spread over seeds.',
            metric,
            loss,
            base,
            lambda margin, spread: spread is not None and margin > spread,
            needs_spread=True,
        )
        for metric, words in (('top1', 'overall'), ('few', 'few-shot'))
        for name, loss, base_name, base in pairs
    ]


def _loss_claims(comparison: Comparison) -> list[Claim]:
    paper = {loss.label: loss for loss in comparison.losses if loss.label in PAPER_NAMES}
    balanced = [paper[label] for label in BALANCED if label in paper]
    others = [loss for label, loss in paper.items() if label not in BALANCED]
    recall, focal, ohem = paper.get('Recall'), paper.get('SoftmaxFocal'), paper.get('OHEM')
    base = paper.get(BASELINE)
    return [
        _ordered(
            'The balanced losses (inverse frequency, class-balanced) have the highest mean '
            'accuracy.',
            'mAcc',
            balanced,
            others,
        ),
        _ordered('The balanced losses have the lowest mean IoU.', 'mIoU', others, balanced),
        _ordered(
            'RecallLoss has the highest mean accuracy after the balanced losses.',
            'mAcc',
            [recall] if recall else [],
            [loss for loss in others if loss is not recall],
        ),
        _pair(
            'RecallLoss is above cross-entropy in mean accuracy by more than the spread over '
            'seeds.',
            'mAcc',
            recall,
            base,
            lambda margin, spread: spread is not None and margin > spread,
            needs_spread=True,
        ),
        _pair(
            f'RecallLoss is at most {IOU_TOLERANCE:g} point of mean IoU below cross-entropy.',
            'mIoU',
            recall,
            base,
            lambda margin, spread: margin >= -IOU_TOLERANCE,
        ),
        *(
            _pair(
                f'Focal loss is close to cross-entropy in {name}: within {CLOSE:g} point, or '
                'within the spread.',
                metric,
                focal,
                base,
                lambda margin, spread: abs(margin) <= max(CLOSE, spread or 0),
            )
            for metric, name in (('mAcc', 'mean accuracy'), ('mIoU', 'mean IoU'))
        ),
        *(
            _ordered(
                f'OHEM is below cross-entropy in {name}.',
                metric,
                [base] if base else [],
                [ohem] if ohem else [],
            )
            for metric, name in (('mAcc', 'mean accuracy'), ('mIoU', 'mean IoU'))
        ),
    ]


def _ordered(text: str, metric: str, above: list[Loss], below: list[Loss]) -> Claim:
    """Whether each loss of ``above`` has a higher mean than each of ``below``."""
    if not above or not below:
        return Claim(text, 'not tested', 'The losses it speaks of are not all here.')
    lowest = min(above, key=lambda loss: loss.metric(metric).mean)
    highest = max(below, key=lambda loss: loss.metric(metric).mean)
    margin = lowest.metric(metric).mean - highest.metric(metric).mean
    outcome = 'confirmed' if margin > 0 else 'refuted'
    return Claim(
        text, outcome, _evidence(metric, lowest, highest) + _doubt(metric, lowest, highest)
    )


def _pair(
    text: str,
    metric: str,
    loss: Loss | None,
    base: Loss | None,
    holds: Callable[[float, float | None], bool],
    needs_spread: bool = False,
) -> Claim:
    if loss is None or base is None:
        return Claim(text, 'not tested', 'The losses it speaks of are not all here.')
    margin = loss.metric(metric).mean - base.metric(metric).mean
    spread = spread_of(metric, loss, base)
    if needs_spread and spread is None:
        return Claim(text, 'not tested', _evidence(metric, loss, base))
    outcome = 'confirmed' if holds(margin, spread) else 'refuted'
    doubt = _doubt(metric, loss, base) if needs_spread else ''
    return Claim(text, outcome, _evidence(metric, loss, base) + doubt)


def _doubt(metric: str, a: Loss, b: Loss) -> str:
    margin, spread = a.metric(metric).mean - b.metric(metric).mean, spread_of(metric, a, b)
    unsettled = spread is not None and abs(margin) <= spread
    return ' These runs do not settle which of the two is higher.' if unsettled else ''


def spread_of(metric: str, a: Loss, b: Loss) -> float | None:
    """Of the difference of two losses in a metric; None where one of them has one seed."""
    first, second = a.metric(metric), b.metric(metric)
    return first.std + second.std if min(first.n, second.n) > 1 else None


def _evidence(metric: str, a: Loss, b: Loss) -> str:
    first, second = a.metric(metric), b.metric(metric)
    margin = first.mean - second.mean
    spread = spread_of(metric, a, b)
    text = (
        f'{metric}: {a.label} {first.mean:.2f}, {b.label} {second.mean:.2f}; difference '
        f'{margin:+.2f}'
    )
    if spread is None:
        return f'{text}. One seed shows no spread, so this settles nothing.'
    seeds = f'({first.n} and {second.n} seeds)'
    relation = 'within' if abs(margin) <= spread else 'more than'
    return f'{text}, {relation} the spread of {spread:.2f} {seeds}.'
