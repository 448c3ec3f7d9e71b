"""Whether a probability of p means that p of the pixels are of the class."""

from __future__ import annotations

import numpy as np


def class_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> np.ndarray:
    """Distance between probability and frequency of each class, over bins of the probability.

        CE_c = sum over bins b of  n_b / n * |mean over b of p_c - share of c in b|

    The bins have equal width (Kull et al. 2019, "Beyond temperature scaling", Equation 3).

    Args:
        probabilities: Of each pixel for each class, (n, C).
        labels: (n,), class ids.
        bins: Of [0, 1].

    Returns:
        (C,) in [0, 1]; NaN for a class without a pixel.

    Example:
        >>> class_calibration_error(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
        array([0.25, 0.25])
    """
    errors = np.full(probabilities.shape[1], np.nan)
    for c in np.unique(labels):
        column = probabilities[:, c].astype(np.float64)
        index = np.minimum((column * bins).astype(int), bins - 1)
        difference = np.bincount(index, column - (labels == c), bins)
        errors[c] = np.abs(difference).sum() / len(labels)
    return errors
