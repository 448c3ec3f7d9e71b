"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

from torch import Tensor

from ..functional import lovasz_softmax
from .base import RegionLoss


class LovaszSoftmaxLoss(RegionLoss):
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

    Across ranks each rank scores its own pixels.

    Args:
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: When the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> LovaszSoftmaxLoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    Source: Berman et al. 2018.
    """

    default_name = 'loss_lovasz_softmax'

    def score(self, logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
        return lovasz_softmax(logits, target, ignore_index=ignore_index)
