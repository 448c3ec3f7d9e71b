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
            pair = ours.ravel() * (candidates + 1) + theirs.ravel()
            pixels = np.bincount(pair, minlength=(number + 1) * (candidates + 1))
            pixels = pixels.reshape(number + 1, candidates + 1)
            union = pixels.sum(axis=1, keepdims=True) + pixels.sum(axis=0) - pixels
            objects[c] = number
            found[c] = (2 * pixels >= union)[1:, 1:].any(axis=1).sum()
    return found, objects
