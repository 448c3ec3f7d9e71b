"""Soft counts of the classes, and the Tversky index (soft Jaccard, Dice) that they define."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_shapes
from .engines import pick_engine


def soft_sums(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255, per_image: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft true positives, mass and pixels of each class over the valid pixels.

        I_c = sum_{n: y_n = c} p_n^c,    M_c = sum_n p_n^c,    N_c = #{n : y_n = c}

    From them follow the false positives M - I, the false negatives N - I and the union M + N - I.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        per_image: Sum over the pixels of each image instead of over those of the batch.

    Returns:
        (intersection, mass, pixels), each (C,), or (N, C) with ``per_image``; the first two
        differentiable, pixels int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(2, 2, 3), torch.tensor([[0, 0, 1], [1, 1, 255]])
        >>> soft_sums(logits, target)[0]
        tensor([1.0000, 1.5000])
        >>> soft_sums(logits, target, per_image=True)[0]
        tensor([[1.0000, 0.5000],
                [0.0000, 1.0000]])

    Source: Rahman & Wang 2016; soft counts over valid pixels only.
    """
    check_shapes(logits, target)
    target = target.long()
    if per_image and logits.dim() == 2:
        logits, target = logits.unsqueeze(2), target.unsqueeze(1)
    sums = pick_engine(logits).soft_counts(logits, target, ignore_index, per_image)
    if per_image:
        return sums
    intersection, mass, pixels = (s.squeeze(0) for s in sums)
    return intersection, mass, pixels


def tversky_distance(
    intersection: Tensor,
    mass: Tensor,
    pixels: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
) -> Tensor:
    """(1 - T_c)^(1 / gamma) of each class present; 0 of the others.

        T_c = I_c / (I_c + alpha FP_c + beta FN_c)

    Args:
        intersection: I_c, (C,) or (N, C), from :func:`soft_sums`, as the next two.
        mass: M_c; FP = M - I.
        pixels: N_c; FN = N - I.
        alpha: Weight of the false positives, >= 0.
        beta: Weight of the false negatives, > 0; with alpha = beta = 1, T is the intersection over
            union.
        gamma: > 0; above 1 it is the focal Tversky loss.

    Returns:
        Tensor of intersection's shape and type, differentiable.

    Example:
        >>> import torch
        >>> tversky_distance(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([2]), beta=0.5)
        tensor([0.3333])

    Source: Salehi et al. 2017; Abraham & Khan 2019 for gamma.
    """
    present = pixels > 0
    # 1 - T without the cancellation.
    misses = alpha * (mass - intersection) + beta * (pixels - intersection)
    distance = misses / torch.where(present, intersection + misses, 1.0)
    if gamma != 1:
        # The slope of a root at 0 is infinite.
        distance = distance.clamp_min(torch.finfo(distance.dtype).tiny) ** (1 / gamma)
    return torch.where(present, distance, 0.0)
