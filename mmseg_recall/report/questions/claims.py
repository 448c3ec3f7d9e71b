"""The orderings that the paper claims, judged on these runs."""

from __future__ import annotations

import math
from itertools import product

from ..blocks import Claim, Claims, Section, Text
from ..judge import NOT_ALL_HERE, NOT_TESTED, Difference, evidence, judge
from ..paper import PAPER_NAMES
from ..summary import BASELINE, Comparison, Loss
from .classifiers import method

ORDER = 50
BALANCED = ('InverseFrequency', 'ClassBalanced')
CLOSE = 1.0
MEANS = (('mAcc', 'mean accuracy'), ('mIoU', 'mean IoU'))


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    """Every claim, in the order of the paper."""
    differences = _shot_claims(comparison) if comparison.classifies else _loss_claims(comparison)
    tested = {text: claimed for text, claimed in differences.items() if claimed}
    judged = dict(zip(tested, judge(comparison, list(tested.values())), strict=True))
    claims = tuple(
        Claim(text, judged[text].outcome, evidence(judged[text]))
        if text in judged
        else Claim(text, NOT_TESTED, NOT_ALL_HERE)
        for text in differences
    )
    note = "p-values are after Holm's correction over the claims about one metric."
    blocks = (Text(f'{comparison.basis} {note}'), Claims(claims))
    return Section("The paper's claims on these runs", blocks)


def _shot_claims(comparison: Comparison) -> dict[str, list[Difference]]:
    ce, sdn_ce, sdn_recall = (
        method(comparison, name) for name in (BASELINE, 'SDN (CE)', 'SDN (Recall)')
    )
    pairs = (('SDN (Recall)', sdn_recall, 'SDN (CE)', sdn_ce), ('SDN (CE)', sdn_ce, BASELINE, ce))
    return {
        f'{name} is above {base_name} in {words} accuracy.': _above(metric, [loss], [base])
        for metric, words in (('top1', 'overall'), ('few', 'few-shot'))
        for name, loss, base_name, base in pairs
    }


def _loss_claims(comparison: Comparison) -> dict[str, list[Difference]]:
    paper = {loss.label: loss for loss in comparison.losses if loss.label in PAPER_NAMES}
    balanced = [paper[label] for label in BALANCED if label in paper]
    others = [loss for label, loss in paper.items() if label not in BALANCED]
    recall, focal, ohem = paper.get('Recall'), paper.get('SoftmaxFocal'), paper.get('OHEM')
    base = paper.get(BASELINE)
    return {
        'The balanced losses (inverse frequency, class-balanced) have the highest mean '
        'accuracy.': _above('mAcc', balanced, others),
        'The balanced losses have the lowest mean IoU.': _above('mIoU', others, balanced),
        'RecallLoss has the highest mean accuracy after the balanced losses.': _above(
            'mAcc', [recall], [loss for loss in others if loss is not recall]
        ),
        'RecallLoss is above cross-entropy in mean accuracy.': _above('mAcc', [recall], [base]),
        f'RecallLoss is at most {CLOSE:g} point of mean IoU below cross-entropy.': _above(
            'mIoU', [recall], [base], -CLOSE
        ),
        **{
            f'Focal loss is within {CLOSE:g} point of cross-entropy in {words}.': _above(
                metric, [focal], [base], -CLOSE, CLOSE
            )
            for metric, words in MEANS
        },
        **{
            f'OHEM is below cross-entropy in {words}.': _above(metric, [base], [ohem])
            for metric, words in MEANS
        },
    }


def _above(
    metric: str,
    above: list[Loss] | list[Loss | None],
    below: list[Loss] | list[Loss | None],
    low: float = 0.0,
    high: float = math.inf,
) -> list[Difference]:
    """That each loss of ``above`` is above each of ``below``; [] where one is not here."""
    pairs = [(a, b) for a, b in product(above, below) if a is not None and b is not None]
    if len(pairs) < len(above) * len(below):
        return []
    return [Difference(metric, first, second, low, high) for first, second in pairs]
