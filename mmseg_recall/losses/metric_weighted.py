"""Cross-entropy weighted by 1 - any metric: the necessity analysis of the paper."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import ClassCounts, dice, jaccard, precision, recall, tversky
from .base import ClassWeightedLoss

METRICS = {
    'recall': recall,
    'precision': precision,
    'dice': dice,
    'f1': dice,
    'jaccard': jaccard,
    'tversky': tversky,
}


class MetricWeightedLoss(ClassWeightedLoss):
    """Cross-entropy weighted by 1 - a metric of each class: the paper's necessity analysis.

        L = - (1 / N) sum_n (1 - M_{y_n}) log p_n

    There to show why recall is the right metric, not to be recommended: for every other M a
    false positive raises the weight of its class, which then gains more of them.

    Args:
        metric: 'recall', 'precision', 'dice', 'f1', 'jaccard' or 'tversky'. A class with pixels
            that is never predicted has precision 0, so weight 1.
        alpha: Tversky's weight of false positives.
        beta: Tversky's weight of false negatives.
        kwargs: Of :class:`ClassWeightedLoss` and :class:`SegmentationLoss`.

    Raises:
        ValueError: An unknown metric; a negative alpha or beta.

    Example:
        >>> import torch
        >>> loss = MetricWeightedLoss('precision')
        >>> loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))
        tensor(0.3033)

    Source: Table 1, Eq. 9.
    """

    default_name = 'loss_metric_weighted'

    def __init__(
        self, metric: str = 'recall', alpha: float = 0.5, beta: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if metric not in METRICS:
            raise ValueError(f'metric must be one of {sorted(METRICS)}, got {metric!r}')
        if not (alpha >= 0 and beta >= 0):
            raise ValueError(f'alpha and beta must be >= 0, got {alpha} and {beta}')
        self.metric = metric
        self.options = dict(alpha=alpha, beta=beta) if metric == 'tversky' else {}

    def class_weight(self, counts: ClassCounts) -> Tensor:
        return 1.0 - METRICS[self.metric](counts, **self.options)
