"""Recall loss: the weight of a class is 1 - its recall in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..functional import ClassCounts, recall_weight
from .base import ClassWeightedLoss


class RecallLoss(ClassWeightedLoss):
    """Cross-entropy weighted by 1 - recall of each class in the batch.

        L = - (1 / N) sum_n (1 - R_{y_n}) log p_n,    R_c = TP_c / N_c

    A class without a pixel in the batch has no recall and takes no part.

    Args:
        momentum: m in [0, 1): the weight comes from a running recall m R + (1 - m) R_batch,
            updated in training for the classes present only, and kept in the checkpoint.
        smoothing: s >= 0, in pixels: 1 - R becomes (FN + s) / (N + s).
        kwargs: Of :class:`ClassWeightedLoss` and :class:`SegmentationLoss`.

    Raises:
        ValueError: An argument out of its range.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 4, requires_grad=True)  # predicts class 0 everywhere
        >>> loss = RecallLoss()(logits, torch.tensor([[[0, 0, 0, 1]]]))
        >>> loss.detach()  # only the missed class counts: log(2) / 4
        tensor(0.1733)

    Source: Eq. 4 and 5, divided by N.
    """

    default_name = 'loss_recall'
    running_names = ('running_recall', 'batches')

    def __init__(self, momentum: float = 0.0, smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f'momentum must be in [0, 1), got {momentum}')
        if not 0 <= smoothing < float('inf'):
            raise ValueError(f'smoothing must be >= 0 and finite, got {smoothing}')
        self.momentum = momentum
        self.smoothing = smoothing
        self.running_recall: Tensor | None = None

    def class_weight(self, counts: ClassCounts) -> Tensor:
        weight = recall_weight(counts, self.smoothing)
        if self.momentum:
            weight = 1.0 - self._mix(1.0 - weight)
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
