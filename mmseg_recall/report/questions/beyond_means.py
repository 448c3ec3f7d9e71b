"""Does a loss find more things, with better outlines, and can its probabilities be trusted?"""

from __future__ import annotations

from ..beside import beside_baseline
from ..blocks import Section
from ..summary import Comparison

ORDER = 22
METRICS = {
    'mObjectRecall': 'objects found',
    'mBoundaryIoU': 'boundary IoU',
    'mCalibrationError': 'calibration error',
}


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    return beside_baseline(
        comparison,
        METRICS,
        'What the means of pixels do not say',
        'Per cent, means over the classes. An object is a connected component of the label, found '
        'if one of the prediction has an IoU of 0.5 with it. Boundary IoU is that of bands along '
        "the outlines, 2% of the image's diagonal wide. The calibration error is how far a "
        'probability is from the share of pixels that are of the class: below is better.',
    )
