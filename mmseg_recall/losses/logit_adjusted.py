"""Logit-adjusted cross-entropy: the prior of the classes is taught apart from the evidence."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import adjusted_nll_sum, check_shapes, log_prior, sum_over_ranks
from ..functional.checks import compute_dtype
from .base import ClassCountsLoss, ClassCountsSource


class LogitAdjustedLoss(ClassCountsLoss):
    """Cross-entropy of the logits plus tau times the log prior of the classes.

        L = - (1 / N) sum_n log softmax(z_n + tau log pi)[y_n],    pi_c = N_c / sum_k N_k

    over the training set's N_c. The model predicts from z, which the adjustment has freed from the
    prior. tau=1 is the balanced softmax of Ren et al. 2020; tau=0 is cross-entropy. Every class
    must have pixels in the training set.

    Args:
        class_counts: See :class:`ClassCountsLoss`.
        tau: >= 0.
        sync_stats: Divide by the valid pixels of all ranks; see :class:`ClassWeightedLoss`.
        kwargs: Of :class:`ClassCountsLoss`.

    Raises:
        ValueError: tau < 0; a class without a pixel; see :class:`ClassCountsLoss` for the rest.

    Example:
        >>> import torch
        >>> loss = LogitAdjustedLoss(class_counts=[3, 1])
        >>> loss(torch.zeros(1, 2, 1), torch.tensor([[1]]))  # -log(1 / 4)
        tensor(1.3863)

    Source: Menon et al. 2021, "Long-tail Learning via Logit Adjustment"; Ren et al. 2020.
    """

    default_name = 'loss_logit_adjusted'
    adjustment: Tensor

    def __init__(
        self,
        class_counts: ClassCountsSource | None = None,
        tau: float = 1.0,
        sync_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts, **kwargs)
        self.sync_stats = sync_stats
        self.register_buffer('adjustment', log_prior(self.class_counts, tau), persistent=False)

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        check_shapes(logits, target)
        self.check_length(logits.shape[1])
        adjustment = self.adjustment.to(compute_dtype(logits)).unsqueeze(1)
        total, num_pixels = adjusted_nll_sum(
            logits, target, adjustment, ignore_index=ignore_index, pixel_weight=pixel_weight
        )
        num_pixels, world_size = sum_over_ranks(num_pixels, self.sync_stats)
        return world_size * total / num_pixels.clamp_min(1)
