"""Does a loss find the rare classes without paying for them? Against the losses that do one."""

from __future__ import annotations

import numpy as np

from ...statistics import (
    NOT_SETTLED,
    SUPPORTED,
    Estimate,
    estimate,
    holm,
    outcome,
    p_of_side,
    what_would_settle,
)
from ..blocks import Claim, Claims, Section, Verdict
from ..judge import Difference, evidence, interval_text, judge, p_text, seeds_text
from ..paper import PAPER_NAMES
from ..summary import Comparison, Loss
from .post_hoc import Curve, Points, curves_by_seed, option_of, post_hoc_curve, upper_envelope

ORDER = 30
REFERENCES = ('Recall', 'InverseFrequency')
MAX_OVERALL_LOSS = 1.5
MIN_SEEDS = 2
NOT_COMPARABLE = 'not comparable'


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    """Judge every loss but CE: against the references, and against CE's curve of what is free.

    Which loss wins is asked where CE and the references are there, and a loss that the paper does
    not have with two seeds or more: a comparison of the paper's losses asks the paper's questions.
    """
    base, curve = comparison.baseline, post_hoc_curve(comparison)
    references = [loss for loss in map(comparison.loss, REFERENCES) if loss is not None]
    others = [loss for loss in comparison.losses if loss not in (base, *references)]
    is_new = any(
        loss.label not in PAPER_NAMES and loss.metric('mIoU').seeds >= MIN_SEEDS for loss in others
    )
    asked = len(references) == len(REFERENCES) and is_new
    candidates = others if asked else [*references, *others]
    if base is None or not candidates or not (asked or curve):
        return None
    candidates.sort(key=lambda loss: -loss.metric('mIoU').mean)
    wins = _wins(comparison, candidates, references, base) if asked else {}
    beats = {} if curve is None else _beat(comparison, base, candidates, curve)
    claims = [
        claims[loss.label]
        for loss in candidates
        for claims in (wins, beats)
        if loss.label in claims
    ]
    title = 'Does a loss win on both axes?' if asked else 'Does a loss beat what is free?'
    verdict = _answer(wins, beats, base, curve) if asked else _against_curve(beats, base, curve)
    return Section(title, (verdict, Claims(tuple(claims))))


def _wins(
    comparison: Comparison, candidates: list[Loss], references: list[Loss], base: Loss
) -> dict[str, Claim]:
    """By label; one family (Holm), of as many claims as there are candidates."""
    claimed = [
        [
            *(
                Difference(metric, loss, other)
                for metric in ('mIoU', 'mAcc')
                for other in references
            ),
            Difference('aAcc', loss, base, -MAX_OVERALL_LOSS),
        ]
        for loss in candidates
    ]
    claims = {}
    for loss, differences, judged in zip(
        candidates, claimed, judge(comparison, claimed), strict=True
    ):
        numbers = []
        for metric in ('mIoU', 'mAcc', 'aAcc'):
            against = ', '.join(
                f'{interval_text(comparison.difference(loss, d.second, metric))} against '
                f'{d.second.label}'
                for d in differences
                if d.metric == metric
            )
            numbers.append(f'{metric} {loss.metric(metric).mean:.2f}: {against}.')
        if judged.outcome != SUPPORTED:
            numbers.append(f'What decides is {evidence(judged)}')
        text = f'{loss.label} wins on both axes.'
        claims[loss.label] = Claim(text, judged.outcome, ' '.join(numbers))
    return claims


def _beat(
    comparison: Comparison, base: Loss, candidates: list[Loss], curve: Curve
) -> dict[str, Claim]:
    """By label; each seed of a loss against the curve of CE's model of that seed."""
    curves = curves_by_seed(comparison)
    found = {loss.label: _above_curve(loss, curves) for loss in candidates}
    known = {label: one for label, one in found.items() if one is not None}
    p_values = holm([p_of_side(one) for one in known.values()])
    claims = {}
    for loss in candidates:
        text = f"{loss.label} is not below {base.label}'s post-hoc curve."
        claims[loss.label] = Claim(text, NOT_COMPARABLE, _outside(loss, curve, option_of(base)[0]))
    for (label, one), p in zip(known.items(), p_values, strict=True):
        decided = outcome(one, p)
        numbers = f'Of mean IoU above the curve: {interval_text(one)}, {seeds_text(one)}'
        if decided == NOT_SETTLED:
            numbers += f'. To settle it: {what_would_settle(one, 0.0, len(known))}.'
        else:
            numbers += f', {p_text(p)}.'
        claims[label] = Claim(claims[label].text, decided, numbers)
    return claims


def _above_curve(loss: Loss, curves: dict[int | None, Points]) -> Estimate | None:
    """Mean IoU above the curve at the same mean accuracy; None where a seed has no such point.

    A loss with more mean accuracy than any tau is measured against the curve's highest mean IoU
    where that is below its own.
    """
    above = []
    for run in loss.runs:
        points = curves.get(run.seed)
        if points is None:
            continue
        iou, accuracy = run.metrics['mIoU'], run.metrics['mAcc']
        height = upper_envelope(points, accuracy)
        best = max(y for _, y in points)
        if height is None and accuracy > points[0][0] and iou >= best:
            height = best
        if height is None:
            return None
        above.append(iou - height)
    return estimate(np.array(above)) if above else None


def _outside(loss: Loss, curve: Curve, option: str) -> str:
    accuracy, iou = loss.metric('mAcc').mean, loss.metric('mIoU').mean
    accuracies = {value: means['mAcc'].mean for value, means in curve.items()}
    is_above = accuracy > next(iter(accuracies.values()))
    end = (max if is_above else min)(curve, key=lambda value: accuracies[value])
    return (
        f'Its mAcc of {accuracy:.2f} is {"above" if is_above else "below"} the curve of a seed, or '
        f'no seed has both. The curve ends at mAcc {accuracies[end]:.2f} with mIoU '
        f'{curve[end]["mIoU"].mean:.2f} ({option} = {end:g}); {loss.label} has mIoU {iou:.2f}.'
    )


def _answer(
    wins: dict[str, Claim], beats: dict[str, Claim], base: Loss, curve: Curve | None
) -> Verdict:
    rule = (
        'A loss wins when it is above RecallLoss and above inverse frequency in mean IoU and in '
        f'mean accuracy, and its overall accuracy is at most {MAX_OVERALL_LOSS:g} points below '
        "that of cross-entropy; each with its interval, after Holm's correction over the losses."
    )
    winners, open_ones = _labels(wins, SUPPORTED), _labels(wins, NOT_SETTLED)
    if winners:
        verdict = f'Yes: {", ".join(winners)}'
    elif open_ones:
        verdict = f'Not settled by these runs, for {", ".join(open_ones)}'
    else:
        verdict = 'No loss here does'
    if curve is None:
        return Verdict(verdict, (rule, 'CE was not tested with post-hoc logit adjustment.'))
    return Verdict(verdict, (rule, *_against_curve(beats, base, curve).sentences))


def _against_curve(beats: dict[str, Claim], base: Loss, curve: Curve | None) -> Verdict:
    values = ', '.join(f'{value:g}' for value in curve or ())
    label, option = base.label, option_of(base)[0]
    above, outside = _labels(beats, SUPPORTED), _labels(beats, NOT_COMPARABLE)
    sentences = (
        f"{label}'s post-hoc curve is the line through {label}'s points at {option} = {values}; a "
        'loss is not below it when its mean IoU is above the highest of the line at the same mean '
        'accuracy, or of the whole line if none of it has as much mean accuracy.',
        f'Not below the curve: {", ".join(above) or "none is shown to be"}.'
        + (f' Outside its range of mean accuracy: {", ".join(outside)}.' if outside else ''),
    )
    verdict = f'Yes: {", ".join(above)}' if above else 'None is shown to'
    return Verdict(verdict, sentences)


def _labels(claims: dict[str, Claim], outcome: str) -> list[str]:
    return [label for label, claim in claims.items() if claim.outcome == outcome]
