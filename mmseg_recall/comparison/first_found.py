"""When a class is first found, from the predictions that training makes anyway."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diagnosis.trained import LEAST_FOUND

CHECKS = 10


def hits(logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Pixels of each class of a batch that are right, and all, at the size of the logits.

    Args:
        logits: (N, C, h, w), of a head, before they are upsampled.
        label: Class ids, (N, 1, H, W), of any integer type; the nearest one counts.
        ignore_index: Of the label.

    Returns:
        int64, (2, C).

    Example:
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[1.0, 1.0]]]])
        >>> hits(logits, torch.tensor([[[[0, 0]]]]), ignore_index=255)
        tensor([[1, 0],
                [2, 0]])
    """
    classes = logits.shape[1]
    nearest = F.interpolate(label.float(), logits.shape[2:])[:, 0].long()
    known = (nearest != ignore_index) & (nearest >= 0) & (nearest < classes)
    right = known & (logits.max(dim=1).indices == nearest)
    return torch.stack([torch.bincount(nearest[x], minlength=classes) for x in (right, known)])


def first_found(counts: Tensor, iterations: int) -> list[float]:
    """By which iteration a class is found: more than 5% of its pixels since the last check are.

    One pixel would not do: a head that has not learnt yet predicts at random, and hits any class.

    Args:
        counts: Those of :func:`hits`, summed between the checks, (CHECKS, 2, C).
        iterations: Of the training; the k-th check is after k / CHECKS of them.

    Returns:
        Of each class; NaN if it is never found.

    Example:
        >>> counts = torch.zeros(10, 2, 3)
        >>> counts[3:, :, 0] = torch.tensor([50, 100])
        >>> counts[:, :, 1] = torch.tensor([1, 100])
        >>> first_found(counts, iterations=150)
        [60.0, nan, nan]
    """
    found = 100 * counts[:, 0] > LEAST_FOUND * counts[:, 1]
    checks = [math.ceil(iterations * (k + 1) / CHECKS) for k in range(CHECKS)]
    return [
        next((float(check) for check, yes in zip(checks, column, strict=True) if yes), math.nan)
        for column in found.T.tolist()
    ]
