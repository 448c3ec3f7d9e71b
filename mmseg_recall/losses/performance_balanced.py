"""Performance-balanced losses: the weight follows how well the model does as it trains."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from ..functional import (
    ClassCounts,
    checked_pixel_nll,
    dice,
    focal_modulation,
    hardest_mean,
    jaccard,
    precision,
    recall,
    recall_weight,
    tversky,
)
from .base import ClassWeightedLoss, SegmentationLoss, mean_over_ranks


@MODELS.register_module()
class RecallLoss(ClassWeightedLoss):
    """Cross-entropy weighted by 1 - recall of each class in the batch.

        L = - (1 / N) sum_n (1 - R_{y_n}) log p_n,    R_c = TP_c / N_c

    A class without a pixel in the batch has no recall and takes no part.

    Args:
        momentum: m in [0, 1): the weight comes from a running recall m R + (1 - m) R_batch,
            updated in training for the classes present only, and kept in the checkpoint.
        smoothing: s >= 0, in pixels: 1 - R becomes (FN + s) / (N + s).
        min_weight: Lower bound of the weight of a class, in [0, 1].
        power: q >= 0: the weight is (1 - R)^q, before the bound.
        begin: Training batches in which every class weighs 1, before recall takes over; how many
            there were is kept in the checkpoint. The running recall follows from the first on.
        kwargs: Of :class:`ClassWeightedLoss` and :class:`SegmentationLoss`.

    Raises:
        ValueError: An argument out of its range.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 4, requires_grad=True)  # predicts class 0 everywhere
        >>> loss = RecallLoss()(logits, torch.tensor([[[0, 0, 0, 1]]]))
        >>> loss  # only the missed class counts: log(2) / 4
        tensor(0.1733, grad_fn=<MulBackward0>)

    Source: Eq. 4 and 5, divided by N.
    """

    default_name = 'loss_recall'
    running_names = ('running_recall', 'batches')

    def __init__(
        self,
        momentum: float = 0.0,
        smoothing: float = 0.0,
        min_weight: float = 0.0,
        power: float = 1.0,
        begin: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f'momentum must be in [0, 1), got {momentum}')
        if not 0 <= smoothing < float('inf'):
            raise ValueError(f'smoothing must be >= 0 and finite, got {smoothing}')
        if not 0 <= min_weight <= 1:
            raise ValueError(f'min_weight must be in [0, 1], got {min_weight}')
        if not 0 <= power < float('inf'):
            raise ValueError(f'power must be >= 0 and finite, got {power}')
        if not (isinstance(begin, int) and begin >= 0):
            raise ValueError(f'begin must be a number of iterations, 0 or more, got {begin}')
        self.momentum = momentum
        self.smoothing = smoothing
        self.min_weight = min_weight
        self.power = power
        self.begin = begin
        self.running_recall: Tensor | None = None
        self.batches: Tensor | None = None

    def class_weight(self, counts: ClassCounts) -> Tensor:
        weight = recall_weight(counts, self.smoothing)
        if self.momentum:
            weight = 1.0 - self._mix(1.0 - weight)
        weight = (weight**self.power).clamp_min(self.min_weight)
        if self.begin:
            none = counts.pixels.new_zeros(())
            batches = self.running('batches', none)
            batches = none if batches is None else batches
            weight = torch.where(batches < self.begin, 1.0, weight)
            if self.training:
                self.batches = batches + 1
        return weight

    def _mix(self, batch_recall: Tensor) -> Tensor:
        running = self.running('running_recall', batch_recall)
        # A class seen for the first time starts from its batch; an absent one keeps what it had.
        if running is None:
            mixed = batch_recall
        else:
            mixed = torch.lerp(batch_recall, running, self.momentum)
            mixed = torch.where(running.isnan(), batch_recall, mixed)
            mixed = torch.where(batch_recall.isnan(), running, mixed)
        if self.training:
            self.running_recall = mixed
        return mixed


METRICS = {
    'recall': recall,
    'precision': precision,
    'dice': dice,
    'f1': dice,
    'jaccard': jaccard,
    'tversky': tversky,
}


@MODELS.register_module()
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


@MODELS.register_module()
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
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int
    ) -> Tensor:
        nll, valid = checked_pixel_nll(logits, target, ignore_index)
        # A power of gamma multiplies the rounding of its base: one number a pixel, in float64.
        losses = focal_modulation(nll.double(), self.gamma).to(nll.dtype)
        if pixel_weight is not None:
            losses = losses * pixel_weight
        return mean_over_ranks(losses, valid.sum(), self.sync_stats)


@MODELS.register_module()
class OHEMLoss(SegmentationLoss):
    """Online hard example mining: mean cross-entropy of the hardest valid pixels of the batch.

    The ceil(ratio N) pixels of highest loss among all N valid pixels of the batch take part.
    Across ranks each rank ranks its own pixels.

    Args:
        ratio: Share of the valid pixels to keep, in (0, 1].
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: ratio outside (0, 1].

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[0.0, 9.0]], [[0.0, 0.0]]]])
        >>> OHEMLoss(ratio=0.5)(logits, torch.tensor([[[0, 0]]]))
        tensor(0.6931)

    Source: Sec. 4.1 (top 70%); Shrivastava et al. 2016.
    """

    default_name = 'loss_ohem'

    def __init__(self, ratio: float = 0.7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < ratio <= 1:
            raise ValueError(f'ratio must be in (0, 1], got {ratio}')
        self.ratio = ratio

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int
    ) -> Tensor:
        nll, valid = checked_pixel_nll(logits, target, ignore_index)
        return hardest_mean(nll if pixel_weight is None else nll * pixel_weight, valid, self.ratio)
