"""Recall on top of a prior: the product of a fixed weight and that of the recall."""

from __future__ import annotations

from torch import Tensor

from ..functional import ClassCounts
from .inverse_frequency import InverseFrequencyLoss
from .recall import RecallLoss


class PriorRecallLoss(InverseFrequencyLoss, RecallLoss):
    """Cross-entropy weighted by inverse class frequency times 1 - recall.

        L = - (1 / N) sum_n w_{y_n}^e (1 - R_{y_n}) log p_n

    with w of :class:`InverseFrequencyLoss` and R of :class:`RecallLoss`, and the options of both:
    ``exponent`` e, ``mode``, ``momentum`` and ``smoothing``.

    Args:
        class_counts: See :class:`ClassCountsLoss`.
        kwargs: Of :class:`InverseFrequencyLoss` and :class:`RecallLoss`.

    Raises:
        ValueError: As either.

    Example:
        >>> import torch
        >>> loss = PriorRecallLoss(class_counts=[6, 2], exponent=0.5)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        >>> loss.last_weight  # class 0 is found
        tensor([0.0000, 1.4142], dtype=torch.float64)

    Source: Eq. 2 and 5, multiplied.
    """

    default_name = 'loss_prior_recall'

    def class_weight(self, counts: ClassCounts) -> Tensor:
        return super().class_weight(counts) * RecallLoss.class_weight(self, counts)
