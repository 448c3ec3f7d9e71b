"""How many things are found, whatever their size."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=int)


def found_objects(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Objects of each class that the prediction has, and those that the label has.

    An object is a connected component of the pixels of a class, corners included. It is found if a
    component of the prediction has an IoU of at least 0.5 with it. Ignored pixels are of no object.

    Args:
        prediction: Class ids, (H, W).
        label: Class ids, (H, W).
        num_classes: C.
        ignore_index: Of the label.

    Returns:
        Found ones and all, int64, (C,) each.

    Example:
        >>> label = np.array([[1, 0, 1], [1, 0, 0]])
        >>> prediction = np.array([[1, 0, 0], [0, 0, 0]])
        >>> found_objects(prediction, label, num_classes=2, ignore_index=255)
        (array([1, 1]), array([1, 2]))
    """
    prediction = np.where(label == ignore_index, ignore_index, prediction)
    found, objects = np.zeros((2, num_classes), dtype=np.int64)
    for c in np.unique(label):
        if 0 <= c < num_classes and c != ignore_index:
            ours, number = ndimage.label(label == c, EIGHT)
            theirs, candidates = ndimage.label(prediction == c, EIGHT)
            # Those that meet only: noise has too many components for a table of all pairs.
            both = (ours > 0) & (theirs > 0)
            pair = ours[both] * np.int64(candidates + 1) + theirs[both]
            pair, pixels = np.unique(pair, return_counts=True)
            one, other = np.divmod(pair, candidates + 1)
            of_one, of_other = np.bincount(ours.ravel()), np.bincount(theirs.ravel())
            objects[c] = number
            found[c] = len(np.unique(one[3 * pixels >= of_one[one] + of_other[other]]))
    return found, objects
