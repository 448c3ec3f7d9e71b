"""Does a loss find the rare classes without paying for them? Against the losses that do one."""

from __future__ import annotations

from ..blocks import Claim, Claims, Section, Verdict
from ..paper import PAPER_NAMES
from ..summary import BASELINE, Comparison, Loss
from .claims import spread_of
from .post_hoc import Curve, points_of, post_hoc_curve, upper_envelope

ORDER = 30
REFERENCES = ('Recall', 'InverseFrequency')
MAX_OVERALL_LOSS = 1.5
MIN_SEEDS = 2
NOT_COMPARABLE = 'not comparable'


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    """Judge every loss but CE and the references.

    Returns:
        None unless CE and the references are there, and a loss that the paper does not have with
        two seeds or more: a comparison of the paper's losses asks the paper's questions only.
    """
    base = comparison.baseline
    references = [comparison.loss(label) for label in REFERENCES]
    known = {BASELINE, *REFERENCES}
    candidates = [loss for loss in comparison.losses if loss.label not in known]
    is_new = any(
        loss.label not in PAPER_NAMES and loss.metric('mIoU').n >= MIN_SEEDS for loss in candidates
    )
    if base is None or None in references or not is_new:
        return None
    candidates.sort(key=lambda loss: -loss.metric('mIoU').mean)
    wins = {loss.label: _wins(loss, references, base) for loss in candidates}
    curve = post_hoc_curve(comparison)
    beats = {} if curve is None else {loss.label: _beats(loss, curve) for loss in candidates}
    claims = [claims[label] for label in wins for claims in (wins, beats) if label in claims]
    blocks = (_answer(wins, beats, curve), Claims(tuple(claims)))
    return Section('Does a loss win on both axes?', blocks)


def _wins(loss: Loss, references: list[Loss], base: Loss) -> Claim:
    numbers, short, is_settled = [], [], True
    for metric in ('mIoU', 'mAcc'):
        differences = []
        for other in references:
            margin = loss.metric(metric).mean - other.metric(metric).mean
            spread = spread_of(metric, loss, other)
            is_settled = is_settled and spread is not None
            known = 'one seed' if spread is None else f'spread {spread:.2f}'
            differences.append(f'{margin:+.2f} against {other.label} ({known})')
            if spread is not None and margin <= spread:
                short.append(f'{metric} against {other.label}')
        numbers.append(f'{metric} {loss.metric(metric).mean:.2f}: {", ".join(differences)}.')
    gain = loss.metric('aAcc').mean - base.metric('aAcc').mean
    if gain < -MAX_OVERALL_LOSS:
        short.append('aAcc')
    numbers.append(f'aAcc {loss.metric("aAcc").mean:.2f}: {gain:+.2f} against {base.label}.')
    if short:
        numbers.append(f'Not enough: {", ".join(short)}.')
    outcome = ('refuted' if short else 'confirmed') if is_settled else 'not tested'
    return Claim(f'{loss.label} wins on both axes.', outcome, ' '.join(numbers))


def _beats(loss: Loss, curve: Curve) -> Claim:
    text = f"{loss.label} is not below CE's post-hoc curve."
    accuracy, iou = loss.metric('mAcc').mean, loss.metric('mIoU').mean
    highest = upper_envelope(points_of(curve), accuracy)
    if highest is not None:
        margin = iou - highest
        numbers = (
            f'At its mAcc of {accuracy:.2f} the curve has mIoU {highest:.2f}, {loss.label} '
            f'{iou:.2f}; difference {margin:+.2f}.'
        )
        return Claim(text, 'confirmed' if margin >= 0 else 'refuted', numbers)
    best = max(values['mIoU'].mean for values in curve.values())
    is_above = accuracy > curve[0.0]['mAcc'].mean
    if is_above and iou >= best:
        numbers = (
            f'Above the whole curve on both axes: mAcc {accuracy:.2f}, mIoU {iou:.2f}; the highest '
            f'of the curve are {max(values["mAcc"].mean for values in curve.values()):.2f} and '
            f'{best:.2f}.'
        )
        return Claim(text, 'confirmed', numbers)
    end = (max if is_above else min)(curve, key=lambda tau: curve[tau]['mAcc'].mean)
    numbers = (
        f'Its mAcc of {accuracy:.2f} is {"above" if is_above else "below"} the whole curve, which '
        f'ends at mAcc {curve[end]["mAcc"].mean:.2f} with mIoU {curve[end]["mIoU"].mean:.2f} '
        f'(tau = {end:g}); {loss.label} has mIoU {iou:.2f}.'
    )
    return Claim(text, NOT_COMPARABLE, numbers)


def _answer(wins: dict[str, Claim], beats: dict[str, Claim], curve: Curve | None) -> Verdict:
    rule = (
        'A loss wins when it is above RecallLoss and above inverse frequency in mean IoU and in '
        'mean accuracy, each by more than the spread over seeds, and its overall accuracy is at '
        f'most {MAX_OVERALL_LOSS:g} points below that of cross-entropy.'
    )
    winners = _labels(wins, 'confirmed')
    if winners:
        verdict = f'Yes: {", ".join(winners)}'
    elif any(claim.outcome == 'refuted' for claim in wins.values()):
        verdict = 'No loss here does'
    else:
        verdict = 'Unknown: one seed shows no spread'
    if curve is None:
        return Verdict(verdict, (rule, 'CE was not tested with post-hoc logit adjustment.'))
    taus = ', '.join(f'{tau:g}' for tau in curve)
    outside = _labels(beats, NOT_COMPARABLE)
    sentences = (
        rule,
        f"CE's post-hoc curve is the line through CE's points at tau = {taus}; a loss is not below "
        'it when its mean IoU is at least the highest of the line at the same mean accuracy, or of '
        'the whole line if none of it has as much mean accuracy.',
        f'Not below the curve: {", ".join(_labels(beats, "confirmed")) or "none"}.'
        + (f' Outside its range of mean accuracy: {", ".join(outside)}.' if outside else ''),
    )
    return Verdict(verdict, sentences)


def _labels(claims: dict[str, Claim], outcome: str) -> list[str]:
    return [label for label, claim in claims.items() if claim.outcome == outcome]
