"""Soft intersection over union (soft Jaccard)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_shapes, valid_pixels
from .class_nll import compute_dtype, sum_per_class
from .counts import count_labels


def soft_intersection_union(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft intersection and union of each class over the valid pixels of the batch.

        I_c = sum_{n: y_n = c} p_n^c,    U_c = sum_n p_n^c + N_c - I_c

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        (intersection, union, pixels), each (C,); the first two differentiable, pixels int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Source: Rahman & Wang 2016; soft counts over valid pixels only.
    """
    check_shapes(logits, target)
    target = target.long()
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1)
    p_true = p.gather(1, torch.where(valid, target, 0).unsqueeze(1)).squeeze(1)
    intersection = sum_per_class(p_true, target, valid, num_classes)
    pixels = count_labels(torch.where(valid, target, num_classes), num_classes + 1)[:-1]
    mass = torch.where(valid.unsqueeze(1), p, 0.0).transpose(0, 1).flatten(1).sum(1)
    return intersection, mass + pixels - intersection, pixels


def soft_iou_loss(intersection: Tensor, union: Tensor, pixels: Tensor) -> Tensor:
    """1 - mean of I_c / U_c over the classes present; 0 when there are none.

    Example:
        >>> import torch
        >>> soft_iou_loss(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]), torch.tensor([1, 0]))
        tensor(0.5000)
    """
    present = pixels > 0
    iou = torch.where(present, intersection / torch.where(present, union, 1.0), 0.0)
    return (present.sum() - iou.sum()) / present.sum().clamp_min(1)
