"""Soft intersection over union."""

from __future__ import annotations

from torch import Tensor

from ..functional import tversky_distance
from .base import SoftCountsLoss


class SoftIoULoss(SoftCountsLoss):
    """One minus the soft intersection over union, averaged over the classes present.

        L = mean_c (1 - I_c / U_c)
        I_c = sum_{n: y_n = c} p_n^c,    U_c = sum_n p_n^c + N_c - I_c

    over the valid pixels of the batch, or of each image; see :class:`SoftCountsLoss`.

    Args:
        average: See :class:`SoftCountsLoss`.
        sync_stats: See :class:`SoftCountsLoss`.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: An unknown average; when the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> SoftIoULoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.6667)

    Source: Rahman & Wang 2016; Wang et al. 2023 for the averages over images.
    """

    default_name = 'loss_soft_iou'

    def distance(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        return tversky_distance(intersection, mass, pixels, alpha=1, beta=1)
