"""Tversky loss: an intersection over union that weighs misses and false alarms apart."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import tversky_distance
from .base import SoftCountsLoss


class SoftTverskyLoss(SoftCountsLoss):
    """A power of one minus the soft Tversky index, averaged over the classes present.

        L = mean_c (1 - T_c)^(1 / gamma),    T_c = I_c / (I_c + alpha FP_c + beta FN_c)
        I_c = sum_{n: y_n = c} p_n^c,    FP_c = sum_n p_n^c - I_c,    FN_c = N_c - I_c

    alpha = beta = 1 is :class:`SoftIoULoss`, 1/2 the Dice loss with soft counts. mmseg's own
    TverskyLoss is another: image by image, smoothed, and over the absent classes, too.

    Args:
        alpha: Weight of the false positives, >= 0.
        beta: Weight of the false negatives, > 0.
        gamma: > 0; above 1 (4/3 in its paper) it is the focal Tversky loss, whose slope in T grows
            as a class is found better.
        kwargs: Of :class:`SoftCountsLoss`: average, sync_stats, and the rest.

    Raises:
        ValueError: An argument out of its range; when the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> SoftTverskyLoss()(torch.zeros(1, 2, 2), torch.tensor([[0, 0]]))  # I = 1, FN = 1
        tensor(0.4118)

    Source: Salehi et al. 2017; Abraham & Khan 2019 for gamma, where alpha and beta are swapped.
    """

    default_name = 'loss_soft_tversky'

    def __init__(
        self, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= alpha < float('inf'):
            raise ValueError(f'alpha must be >= 0 and finite, got {alpha}')
        if not 0 < beta < float('inf'):
            raise ValueError(f'beta must be > 0 and finite, got {beta}')
        if not 0 < gamma < float('inf'):
            raise ValueError(f'gamma must be > 0 and finite, got {gamma}')
        self.options = dict(alpha=alpha, beta=beta, gamma=gamma)

    def distance(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        return tversky_distance(intersection, mass, pixels, **self.options)
