"""Per-class pixel counts of one batch, and the metrics that they define.

These are float64 on devices that have it, else float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .checks import widest


class ClassCounts(NamedTuple):
    """What the predictions of a batch say about each class, over valid pixels only.

    Everything that needs counts (class weights, logged accuracy, metrics) reads them from here,
    so a batch is counted once.

    Attributes:
        pixels: N_c, pixels labelled c. Shape (C,), int64.
        true_positives: TP_c, pixels labelled c whose largest logit is c. Shape (C,), int64.
        predicted: pixels whose largest logit is c, whatever their label. Shape (C,), int64.
    """

    pixels: Tensor
    true_positives: Tensor
    predicted: Tensor


def count_labels(labels: Tensor, num_bins: int) -> Tensor:
    """Count each id of ``labels`` (int64, every id in [0, num_bins)).

    Not ``torch.bincount``: on CUDA that one waits for the device to size its result.
    """
    bins = torch.zeros(num_bins, dtype=torch.int64, device=labels.device)
    return bins.scatter_add_(0, labels.flatten(), torch.ones_like(labels.flatten()))


def count_classes(
    prediction: Tensor, target: Tensor, num_classes: int, valid: Tensor
) -> ClassCounts:
    """Count pixels, true positives and predictions per class.

    Args:
        prediction: Predicted class ids, int64, any shape.
        target: Class ids, int64, same shape; what stands at invalid pixels does not matter.
        num_classes: C.
        valid: Bool, same shape: the pixels that take part.

    Example:
        >>> import torch
        >>> target = torch.tensor([0, 0, 1, 255])
        >>> count_classes(torch.tensor([0, 1, 1, 1]), target, 2, target != 255)
        ClassCounts(pixels=tensor([2, 1]), true_positives=tensor([1, 1]), predicted=tensor([1, 2]))
    """
    # Pixels that take no part fall into an extra bin: no boolean indexing, hence no
    # synchronisation on CUDA and a static shape under torch.compile.
    rest = torch.full_like(target, num_classes)
    hit = valid & (prediction == target)
    return ClassCounts(
        pixels=count_labels(torch.where(valid, target, rest), num_classes + 1)[:-1],
        true_positives=count_labels(torch.where(hit, target, rest), num_classes + 1)[:-1],
        predicted=count_labels(torch.where(valid, prediction, rest), num_classes + 1)[:-1],
    )


def _ratio(numerator: Tensor, denominator: Tensor, empty: float) -> Tensor:
    value = numerator / denominator.clamp_min(torch.finfo(numerator.dtype).tiny)
    return torch.where(denominator > 0, value, torch.full_like(value, empty))


def recall(counts: ClassCounts) -> Tensor:
    """R_c = TP_c / N_c, (C,); NaN for a class without a pixel in the batch.

    Source: Table 1, first column.

    Example:
        >>> import torch
        >>> pixels, hits = torch.tensor([4, 0]), torch.tensor([1, 0])
        >>> recall(ClassCounts(pixels, hits, hits))
        tensor([0.2500,    nan], dtype=torch.float64)
    """
    return _ratio(widest(counts.true_positives), widest(counts.pixels), float('nan'))


def precision(counts: ClassCounts) -> Tensor:
    """TP_c / (TP_c + FP_c), (C,); 0 for a class never predicted. Source: Table 1."""
    return _ratio(widest(counts.true_positives), widest(counts.predicted), 0.0)


def tversky(counts: ClassCounts, alpha: float = 0.5, beta: float = 0.5) -> Tensor:
    """TP / (TP + alpha FP + beta FN), (C,); 0 where that is 0 / 0. Source: Table 1."""
    hits = widest(counts.true_positives)
    false_positives = widest(counts.predicted) - hits
    false_negatives = widest(counts.pixels) - hits
    return _ratio(hits, hits + alpha * false_positives + beta * false_negatives, 0.0)


def dice(counts: ClassCounts) -> Tensor:
    """2 TP / (2 TP + FP + FN), (C,). The same number as F1. Source: Table 1."""
    return tversky(counts, 0.5, 0.5)


def jaccard(counts: ClassCounts) -> Tensor:
    """TP / (TP + FP + FN), the intersection over union, (C,). Source: Table 1."""
    return tversky(counts, 1.0, 1.0)
