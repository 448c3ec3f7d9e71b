"""Does a loss teach more, or does it only draw the line between the classes elsewhere?"""

from __future__ import annotations

from ..beside import beside_baseline
from ..blocks import Section
from ..summary import Comparison

ORDER = 21
METRICS = {
    'mIoU_as_is': 'mean IoU',
    'mIoU_with_offsets': 'mean IoU with offsets',
    'mAP': 'mean average precision',
}


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return beside_baseline(
        comparison,
        METRICS,
        'What a loss teaches, and where it draws the line',
        'Per cent, of every fourth pixel of every fourth row of the test images. Offsets are '
        'constants added to the logits of each class, fitted on the validation images after '
        'training: what is left of a gain when both sides have theirs is what the loss has '
        'taught, and not where it draws the line. Average precision ranks the pixels by the '
        'probability of a class, and knows no line at all.',
    )
