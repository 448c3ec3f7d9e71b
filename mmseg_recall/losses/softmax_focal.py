"""Focal loss on softmax probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import checked_pixel_nll, focal_modulation
from ..functional.checks import widest
from .base import SegmentationLoss, mean_over_ranks, times_pixel_weight


class SoftmaxFocalLoss(SegmentationLoss):
    """Focal loss on softmax probabilities, averaged over the valid pixels.

        L = (1 / N) sum_n (1 - p_n)^gamma (-log p_n)

    Args:
        gamma: >= 0; 0 is cross-entropy, 1 is what the paper analyses.
        sync_stats: Divide by the valid pixels of all ranks; see :class:`ClassWeightedLoss`.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: gamma < 0.

    Example:
        >>> import torch
        >>> SoftmaxFocalLoss(gamma=1)(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
        tensor(0.3466)

    Source: Sec. 4.4; Lin et al. 2017, per pixel.
    """

    default_name = 'loss_softmax_focal'

    def __init__(self, gamma: float = 1.0, sync_stats: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= gamma < float('inf'):
            raise ValueError(f'gamma must be >= 0 and finite, got {gamma}')
        self.gamma = gamma
        self.sync_stats = sync_stats

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        nll, valid = checked_pixel_nll(logits, target, ignore_index)
        # A power of gamma multiplies the rounding of its base: in the widest type, one a pixel.
        losses = focal_modulation(widest(nll), self.gamma).to(nll.dtype)
        losses = times_pixel_weight(losses, valid, pixel_weight)
        return mean_over_ranks(losses, valid.sum(), self.sync_stats)
