"""What an engine is: the same few functions of logits and target, computed in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..counts import ClassCounts

Weigh = Callable[[ClassCounts], tuple[Tensor, Tensor]]
"""The weight of each class, and its pixels, (C,), over all ranks, from the counts of this rank."""


class Engine(NamedTuple):
    """Functions that every loss is made of, each from logits (N, C, ...) and int64 target (N, ...).

    Shapes and devices have been checked; labels are checked here, where they are read anyway.
    """

    class_sums: Callable[..., tuple[Tensor, ...]]
    """(logits, target, ignore_index, pixel_weight) -> (S_c, then the fields of ClassCounts)."""
    resized_class_sums: Callable[..., tuple[Tensor, ...]]
    """(logits, target, ignore_index, align_corners) -> the same of the resized logits."""
    pixel_nll: Callable[..., tuple[Tensor, Tensor]]
    """(logits, target, ignore_index) -> (-log p per pixel, valid)."""
    soft_counts: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(logits, target, ignore_index, per_image) -> (intersection, mass, pixels), (images, C)."""
    adjusted_nll: Callable[..., tuple[Tensor, Tensor]]
    """(logits, target, ignore_index, pixel_weight, adjustment, q) -> (sum of ``adjusted_nll_sum``,
    valid pixels)."""
    lovasz_softmax: Callable[..., Tensor]
    """(logits, target, ignore_index, sync) -> the loss, by counting."""
    resized_class_sums_and_lovasz: Callable[..., tuple[Tensor, ...]]
    """(logits, target, ignore_index, align_corners, sync) -> of the resized logits S_c, the loss by
    counting, then the fields of ClassCounts."""
    weighted_mean: Callable[..., Tensor] | None = None
    """(logits, target, ignore_index, pixel_weight, weigh, normalization) -> ``weighted_nll``; None
    where that is best made of class_sums.
    """
