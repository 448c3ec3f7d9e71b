"""The focal loss of Focal-DRW: the class weight is part of what is modulated."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ..functional import checked_pixel_nll, focal_modulation
from ..functional.checks import widest
from ..losses.base import mean_over_ranks, times_pixel_weight
from ..losses.softmax_focal import SoftmaxFocalLoss
from .losses import without_ignored_id


class WeightedFocalLoss(SoftmaxFocalLoss):
    """Focal loss of weighted cross-entropy.

        L = (1 / N) sum_n (1 - p_n^w_n)^gamma (-w_n log p_n)

    with w_n the weight of the sample, which
    :class:`~mmseg_recall.classification.deferred_reweighting.DeferredReweightingHook` gives. In
    SoftmaxFocalLoss the weight multiplies (1 - p_n)^gamma (-log p_n). Without weights both are
    the same. A weight here changes which samples count as hard, so its scale matters: the source
    normalises w_c to sum C (the hook's ``normalization='classes'``).

    Args:
        gamma: >= 0; 1 in the source.
        kwargs: Of SoftmaxFocalLoss.

    Example:
        >>> import torch
        >>> loss = WeightedFocalLoss()
        >>> loss(torch.zeros(1, 2), torch.tensor([0]), weight=torch.tensor([2.0]))
        tensor(1.0397)

    Source: the code of Cao et al. 2019, which the paper's Focal-DRW is taken to be.
    """

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        nll, valid = checked_pixel_nll(logits, target, ignore_index)
        weighted = times_pixel_weight(widest(nll), valid, pixel_weight)
        losses = focal_modulation(weighted, self.gamma).to(nll.dtype)
        return mean_over_ranks(losses, valid.sum(), self.sync_stats)


MODELS.register_module(name='WeightedFocalLoss', module=without_ignored_id(WeightedFocalLoss))
