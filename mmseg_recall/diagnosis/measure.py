"""What training will see: shares of classes, their objects, and how often a batch shows one."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from ..datasets.labels import count_ids, label_of
from ..datasets.parallel import parallel_map

CROPS = 1500
"""Crops drawn, about; each image as often as the others."""


class Crops(NamedTuple):
    """What the crops of one epoch, drawn through the whole training pipeline, show."""

    shows: np.ndarray
    """Mean share of the crops that show each class, (C,)."""
    objects: np.ndarray
    """Connected components of each class in one epoch, (C,)."""
    median_size: np.ndarray
    """Pixels of the median component; NaN without one, (C,)."""
    ids: set[int]
    """All ids found."""
    number: int
    """Of crops."""


def gini(values: np.ndarray) -> float:
    """Gini coefficient of shares: 0 where all are equal, (C - 1) / C where one has everything.

        G = sum_ij |x_i - x_j| / (2 C sum_i x_i)

    Example:
        >>> gini(np.array([5, 5, 5])), round(gini(np.array([0, 0, 9])), 3)
        (0.0, 0.667)
    """
    differences = np.abs(values[:, None] - values[None, :]).sum()
    return float(differences / max(2 * len(values) * values.sum(), 1))


def draw_crops(dataset: Any, num_classes: int) -> Crops:
    """Draw every image of the training set through the whole pipeline, several times if few."""
    drawn = np.tile(np.arange(len(dataset)), max(1, round(CROPS / len(dataset))))
    if len(drawn) > 2 * CROPS:
        drawn = np.random.default_rng(0).choice(drawn, 2 * CROPS, replace=False)

    def one(index: int) -> tuple[dict[int, int], dict[int, list[int]]]:
        label = label_of(dataset[int(index)])
        if label is None:
            return {}, {}
        ids = count_ids(label)
        return ids, {c: _component_sizes(label == c) for c in ids if 0 <= c < num_classes}

    shows = np.zeros(num_classes)
    sizes: list[list[int]] = [[] for _ in range(num_classes)]
    found: set[int] = set()
    for ids, components in parallel_map(one, drawn.tolist(), 'Drawing crops', threads=True):
        found |= set(ids)
        for c, of_class in components.items():
            shows[c] += 1
            sizes[c] += of_class
    epochs = len(drawn) / len(dataset)
    return Crops(
        shows / len(drawn),
        np.array([len(of_class) for of_class in sizes]) / epochs,
        np.array([np.median(of_class) if of_class else np.nan for of_class in sizes]),
        found,
        len(drawn),
    )


def _component_sizes(mask: np.ndarray) -> list[int]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8).squeeze())
    return stats[1:, cv2.CC_STAT_AREA].tolist()


def chance_in_batch(shows: np.ndarray, batch_size: int) -> np.ndarray:
    """Chance that a batch shows each class, from the chance that a crop does.

    Example:
        >>> chance_in_batch(np.array([0.5]), 2)
        array([0.75])
    """
    return 1 - (1 - shows) ** batch_size
