"""Statistics-balanced losses: fixed class weights from the pixel counts of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.registry import MODELS
from torch import Tensor

from ..functional import (
    ClassCounts,
    class_balanced_weight,
    inverse_frequency_weight,
    median_frequency_weight,
)
from .base import ClassWeightedLoss
from .class_counts import load_class_counts

MODES = {'inverse': inverse_frequency_weight, 'median': median_frequency_weight}

ClassCountsSource = Sequence[float] | str | Path | None


class StatisticsBalancedLoss(ClassWeightedLoss):
    """Base of the losses whose class weights are fixed before training.

    Args:
        class_counts: Pixels of each class in the training set: a list, or the path of the JSON
            file that ``tools/class_statistics.py CONFIG`` writes. Required.
        num_classes: C, to refuse counts of another length at once instead of at the first batch;
            LossRunner gives that of the head.
        kwargs: Of :class:`ClassWeightedLoss` and :class:`SegmentationLoss`.

    Raises:
        ValueError: No counts, counts that are negative, not finite or all zero, or not
            ``num_classes`` many; at the first batch, not as many as the logits have classes.
        FileNotFoundError: No such file; the message is the command that writes it.
    """

    def __init__(
        self,
        class_counts: ClassCountsSource = None,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if class_counts is None:
            raise ValueError(
                f'{type(self).__name__} needs class_counts, the pixels of each class in the '
                'training set: a list, or the file that '
                '`python tools/class_statistics.py CONFIG` writes'
            )
        self.source = class_counts if isinstance(class_counts, (str, Path)) else 'the list given'
        weight = self.static_weight(load_class_counts(class_counts))
        self.register_buffer('weight', weight, persistent=False)
        if num_classes is not None:
            self._check_length(num_classes, 'num_classes is')

    def static_weight(self, pixels: Tensor) -> Tensor:
        """Weight of each class, (C,), from the pixels of each class, (C,) float64."""
        raise NotImplementedError

    def class_weight(self, counts: ClassCounts) -> Tensor:
        self._check_length(len(counts.pixels), 'the logits have')
        return self.weight

    def _check_length(self, num_classes: int, which: str) -> None:
        if len(self.weight) != num_classes:
            raise ValueError(
                f'class_counts of {type(self).__name__} ({self.source}) has {len(self.weight)} '
                f'classes, {which} {num_classes}. Run '
                '`python tools/class_statistics.py CONFIG` for this data set'
            )


@MODELS.register_module()
class InverseFrequencyLoss(StatisticsBalancedLoss):
    """Cross-entropy weighted by inverse class frequency: the paper's "Weighted CE".

        L = - (1 / N) sum_n w_{y_n} log p_n
        w_c = N / (C N_c)         (mode='inverse')
        w_c = median(N) / N_c     (mode='median': what the authors run)

    with N_c the pixels of class c in the training set. A class never seen there weighs 0.

    Args:
        class_counts: See :class:`StatisticsBalancedLoss`.
        mode: 'inverse' or 'median'.
        kwargs: What :class:`StatisticsBalancedLoss` takes.

    Raises:
        ValueError: An unknown mode; see :class:`StatisticsBalancedLoss` for the counts.

    Example:
        >>> InverseFrequencyLoss(class_counts=[6, 2]).weight
        tensor([0.6667, 2.0000], dtype=torch.float64)

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
        class_counts: See :class:`StatisticsBalancedLoss`.
        beta: b in [0, 1); None for (N - 1) / N, N all pixels, as the authors run it.
        kwargs: What :class:`StatisticsBalancedLoss` takes.

    Raises:
        ValueError: beta outside [0, 1); see :class:`StatisticsBalancedLoss` for the counts.

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
