"""Classes with many, some and few training images, and the accuracy of each kind."""

from __future__ import annotations

import numpy as np

from .areas import Areas

MANY, FEW = 100, 20
SHOTS = ('many', 'medium', 'few')


def shot_of(class_counts: np.ndarray, many: int = MANY, few: int = FEW) -> np.ndarray:
    """'many' (more than ``many`` training images), 'few' (fewer than ``few``) or 'medium'.

    Example:
        >>> shot_of(np.array([101, 100, 20, 19])).tolist()
        ['many', 'medium', 'medium', 'few']

    Source: Liu et al. 2019; Table 4.
    """
    return np.select([class_counts > many, class_counts < few], ['many', 'few'], 'medium')


def shot_accuracies(areas: Areas, shots: np.ndarray) -> dict[str, float]:
    """Mean accuracy in [0, 1] over the classes of each shot; NaN for one without any.

    Args:
        areas: Images of each class instead of pixels, (C,).
        shots: Of each class, as :func:`shot_of` says, (C,).
    """
    means = {}
    for shot in SHOTS:
        of_shot = (shots == shot) & (areas.label > 0)
        accuracy = areas.intersect[of_shot] / areas.label[of_shot]
        means[shot] = accuracy.mean() if len(accuracy) else np.nan
    return means
