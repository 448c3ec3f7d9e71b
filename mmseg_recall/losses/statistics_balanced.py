"""Statistics-balanced losses: fixed class weights from the pixel counts of the training set."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ..functional import (
    ClassCounts,
    class_balanced_weight,
    inverse_frequency_weight,
    median_frequency_weight,
)
from .base import ClassWeightedLoss
from .class_counts import ClassCountsLoss, ClassCountsSource

MODES = {'inverse': inverse_frequency_weight, 'median': median_frequency_weight}


class StatisticsBalancedLoss(ClassCountsLoss, ClassWeightedLoss):
    """Base of the losses whose class weights are fixed before training.

    Args:
        exponent: e in [0, 1]; the weight of a class seen becomes w_c^e: 0 is plain cross-entropy,
            1/2 the square root, 1 the weight itself.
        kwargs: Of :class:`ClassCountsLoss` and :class:`ClassWeightedLoss`.

    Raises:
        ValueError: exponent outside [0, 1]; see :class:`ClassCountsLoss` for the counts.
    """

    def __init__(
        self, class_counts: ClassCountsSource = None, exponent: float = 1.0, **kwargs: Any
    ) -> None:
        if not 0 <= exponent <= 1:
            raise ValueError(
                f'exponent must be in [0, 1], from plain cross-entropy to the weights of '
                f'{type(self).__name__}, got {exponent}'
            )
        super().__init__(class_counts, **kwargs)
        weight = self.static_weight(self.class_counts)
        weight = torch.where(weight > 0, weight**exponent, 0.0)
        self.register_buffer('weight', weight, persistent=False)

    def static_weight(self, pixels: Tensor) -> Tensor:
        """Weight of each class, (C,), from the pixels of each class, (C,) float64."""
        raise NotImplementedError

    def class_weight(self, counts: ClassCounts) -> Tensor:
        self.check_length(len(counts.pixels))
        return self.weight


@MODELS.register_module()
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
        self, class_counts: ClassCountsSource = None, mode: str = 'inverse', **kwargs: Any
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'mode must be one of {sorted(MODES)}, got {mode!r}')
        self.mode = mode
        super().__init__(class_counts, **kwargs)

    def static_weight(self, pixels: Tensor) -> Tensor:
        return MODES[self.mode](pixels)


@MODELS.register_module()
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
        self, class_counts: ClassCountsSource = None, beta: float | None = None, **kwargs: Any
    ) -> None:
        if beta is not None and not 0 <= beta < 1:
            raise ValueError(f'beta must be in [0, 1), got {beta}')
        self.beta = beta
        super().__init__(class_counts, **kwargs)

    def static_weight(self, pixels: Tensor) -> Tensor:
        return class_balanced_weight(pixels, self.beta)
