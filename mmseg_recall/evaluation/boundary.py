"""How well the outlines of the classes agree."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import distance_transform_cdt


def boundary_areas(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in which the bands along the outlines of a class meet, and those of either band.

    The band of a mask are its pixels at most d from a pixel outside it, d = 2% of the image's
    diagonal, and the image's border is an outline, too. Over all images, the ratio of the sums is
    the boundary IoU (Cheng et al. 2021, "Boundary IoU", Section 4). Ignored pixels are of no mask.

    Args:
        prediction: Class ids, (H, W).
        label: Class ids, (H, W).
        num_classes: C.
        ignore_index: Of the label.

    Returns:
        Intersection and union, int64, (C,) each.

    Example:
        >>> label = np.zeros((4, 4), dtype=int)
        >>> boundary_areas(label, label, num_classes=2, ignore_index=255)
        (array([12,  0]), array([12,  0]))
    """
    width = max(1, round(0.02 * math.hypot(*label.shape)))
    prediction = np.where(label == ignore_index, ignore_index, prediction)
    meet, either = np.zeros((2, num_classes), dtype=np.int64)
    for c in np.union1d(prediction, label):
        if 0 <= c < num_classes and c != ignore_index:
            of_prediction, of_label = _band(prediction == c, width), _band(label == c, width)
            meet[c] = (of_prediction & of_label).sum()
            either[c] = (of_prediction | of_label).sum()
    return meet, either


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """What ``width`` erosions by a square of 3 x 3 take from a mask."""
    if not mask.any():
        return mask
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = distance_transform_cdt(np.pad(mask[box], 1), metric='chessboard')[1:-1, 1:-1]
    band = np.zeros_like(mask)
    band[box] = mask[box] & (inside <= width)
    return band
