"""Cross-entropy weighted by the effective number of samples."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import class_balanced_weight
from .base import ClassCountsSource, StatisticsBalancedLoss


class ClassBalancedLoss(StatisticsBalancedLoss):
    """Cross-entropy weighted by the effective number of samples: the paper's "Balanced CE".

        L = - (1 / N) sum_n w_{y_n} log p_n,    w_c ~ (1 - b) / (1 - b^N_c), summing to C

    Args:
        class_counts: See :class:`ClassCountsLoss`.
        beta: b in [0, 1); None for (N - 1) / N, N all pixels, as the authors run it.
        kwargs: What :class:`StatisticsBalancedLoss` takes.

    Raises:
        ValueError: beta outside [0, 1); see :class:`StatisticsBalancedLoss`.

    Example:
        >>> ClassBalancedLoss(class_counts=[3, 1]).weight
        tensor([0.6038, 1.3962], dtype=torch.float64)

    Source: Cui et al. 2019.
    """

    default_name = 'loss_class_balanced'

    def __init__(
        self,
        class_counts: ClassCountsSource | None = None,
        beta: float | None = None,
        **kwargs: Any,
    ) -> None:
        if beta is not None and not 0 <= beta < 1:
            raise ValueError(f'beta must be in [0, 1), got {beta}')
        self.beta = beta
        super().__init__(class_counts, **kwargs)

    def static_weight(self, pixels: Tensor) -> Tensor:
        return class_balanced_weight(pixels, self.beta)
