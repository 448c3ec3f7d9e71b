"""What a model has learnt, apart from where it draws the line between the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from . import areas as A

OFFSETS = np.arange(-6, 6.01, 0.25)
GRID = 4
"""Every so many rows and columns have the pixels that are fitted and scored."""

Pixels = tuple[np.ndarray, np.ndarray]
"""Logits (n, C) and labels (n,) of pixels of an image, or of several."""


def pixels_of(logits: Tensor, label: Tensor, ignore_index: int, every: int = GRID) -> Pixels:
    """Those of an image on a grid whose label is a class.

    Args:
        logits: (C, H, W).
        label: Class ids, (H, W).
        ignore_index: Of the label.
        every: Rows and columns from one pixel to the next.

    Example:
        >>> import torch
        >>> logits = torch.arange(32.0).view(2, 4, 4)
        >>> pixels_of(logits, torch.zeros(4, 4, dtype=torch.long), ignore_index=255)
        (array([[10., 26.]], dtype=float32), array([0]))
    """
    step = slice(min(every, *label.shape) // 2, None, every)
    labels = label[step, step].flatten().cpu().numpy().astype(np.int64)
    kept = (labels != ignore_index) & (labels >= 0) & (labels < len(logits))
    return logits[:, step, step].flatten(1).T.float().cpu().numpy()[kept], labels[kept]


def joined(images: Sequence[Pixels], most: int) -> Pixels:
    """The pixels of all images, in float64: at most so many, evenly spaced."""
    logits, labels = (np.concatenate(parts) for parts in zip(*images, strict=True))
    step = max(1, -(-len(labels) // most))
    return logits[::step].astype(np.float64), labels[::step]


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean precision over the pixels of each class, as the others are ranked by their scores.

        AP_c = 1 / N_c  sum over pixels n of c of  #{m of c: s_m >= s_n} / #{m: s_m >= s_n}

    It depends on the order of the pixels only, so that no threshold changes it.

    Args:
        scores: Of each pixel for each class, (n, C).
        labels: (n,), class ids.

    Returns:
        (C,) in [0, 1]; NaN for a class without a pixel.

    Example:
        >>> average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([0, 1, 0]))
        array([0.83333333])
    """
    found = np.full(scores.shape[1], np.nan)
    for c, column in enumerate(scores.T):
        order = np.argsort(-column, kind='stable')
        ranked, hits = column[order], (labels == c)[order]
        if not hits.any():
            continue
        # Pixels of one score are found together.
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        above = np.cumsum(hits)[last]
        recall_gain = np.diff(above, prepend=0) / above[-1]
        found[c] = (recall_gain * above / (last + 1)).sum()
    return found


def fit_offsets(logits: np.ndarray, labels: np.ndarray, sweeps: int = 2) -> np.ndarray:
    """What to add to each class's logits for the highest mean IoU, class after class.

        prediction = argmax_c z_c + b_c

    Post-hoc logit adjustment with a constant of its own for every class.

    Args:
        logits: (n, C), of validation pixels.
        labels: (n,), class ids.
        sweeps: How often each class has its turn.

    Returns:
        b, (C,), of ``OFFSETS``; 0 for a class without a pixel.

    Example:
        >>> logits = np.array([[1.0, 0.8], [1.0, 0.0], [1.0, 0.9]])
        >>> fit_offsets(logits, np.array([1, 0, 1]))
        array([-0.25,  0.  ])
    """
    offsets = np.zeros(logits.shape[1])
    for _ in range(sweeps):
        for c in np.unique(labels):
            values = _mean_ious(logits, labels, offsets, c)
            # Of equals the smallest change.
            best = np.flatnonzero(values == values.max())
            offsets[c] = OFFSETS[best[np.abs(OFFSETS[best]).argmin()]]
    return offsets


def _mean_ious(logits: np.ndarray, labels: np.ndarray, offsets: np.ndarray, c: int) -> np.ndarray:
    """Mean IoU of the classes present with each of OFFSETS for class c, the others' as they are."""
    num_classes = logits.shape[1]
    others = logits + offsets
    others[:, c] = -np.inf
    second = others.argmax(axis=1)
    # Up from this offset the pixel goes to c; until then to the second.
    turn = others.max(axis=1) - logits[:, c]
    first = np.searchsorted(OFFSETS, turn, side='right')
    steps = len(OFFSETS)

    def so_far(ids: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Pixels of each id that have gone to c at each offset, (steps, C)."""
        flat = np.bincount(
            first[which] * num_classes + ids[which], minlength=(steps + 1) * num_classes
        )
        return flat.reshape(steps + 1, num_classes).cumsum(axis=0)

    anywhere = np.ones(len(labels), bool)
    gone, hits_gone = so_far(second, anywhere), so_far(second, second == labels)
    predicted, intersect = gone[-1] - gone, hits_gone[-1] - hits_gone
    predicted[:, c] = gone.sum(axis=1)
    intersect[:, c] = so_far(labels, anywhere)[:, c]
    label = np.bincount(labels, minlength=num_classes)
    iou = A.iou(A.Areas(intersect, predicted, np.broadcast_to(label, predicted.shape)))
    return iou[:steps, label > 0].mean(axis=1)
