"""Cross-entropy weighted by inverse class frequency."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import inverse_frequency_weight, median_frequency_weight
from .base import ClassCountsSource, StatisticsBalancedLoss

MODES = {'inverse': inverse_frequency_weight, 'median': median_frequency_weight}


class InverseFrequencyLoss(StatisticsBalancedLoss):
    """Cross-entropy weighted by inverse class frequency: the paper's "Weighted CE".

        L = - (1 / N) sum_n w_{y_n} log p_n
        w_c = N / (C N_c)         (mode='inverse')
        w_c = median(N) / N_c     (mode='median': what the authors run)

    with N_c the pixels of class c in the training set. A class never seen there weighs 0.
    ``exponent`` tempers it: with 0.5 the weight is the square root.

    Args:
        class_counts: See :class:`ClassCountsLoss`.
        mode: 'inverse' or 'median'.
        kwargs: What :class:`StatisticsBalancedLoss` takes.

    Raises:
        ValueError: An unknown mode; see :class:`StatisticsBalancedLoss`.

    Example:
        >>> InverseFrequencyLoss(class_counts=[6, 2]).weight
        tensor([0.6667, 2.0000], dtype=torch.float64)
        >>> InverseFrequencyLoss(class_counts=[6, 2], exponent=0.5).weight
        tensor([0.8165, 1.4142], dtype=torch.float64)

    Source: Eq. 2; Eigen & Fergus 2015 for the median.
    """

    default_name = 'loss_inverse_frequency'

    def __init__(
        self, class_counts: ClassCountsSource | None = None, mode: str = 'inverse', **kwargs: Any
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'mode must be one of {sorted(MODES)}, got {mode!r}')
        self.mode = mode
        super().__init__(class_counts, **kwargs)

    def static_weight(self, pixels: Tensor) -> Tensor:
        return MODES[self.mode](pixels)
