"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import lovasz_softmax
from .base import RegionLoss


class LovaszSoftmaxLoss(RegionLoss):
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

    Of more than 16,384 pixels the errors are counted in bins instead of sorted: the value is
    within 1e-4 of itself, the gradient within 1e-3 of its norm; see
    :func:`mmseg_recall.functional.lovasz_softmax`. Across W ranks the batch is that of all, each
    rank returns its loss, with W times its share of the gradient.

    Args:
        exact: Sort however many pixels there are, which takes longer and more memory; across
            ranks each sorts the pixels of all.
        sync_stats: Over all ranks. With False each rank scores its own pixels.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: When the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> LovaszSoftmaxLoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    Source: Berman et al. 2018.
    """

    default_name = 'loss_lovasz_softmax'

    def __init__(self, exact: bool = False, sync_stats: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exact = exact
        self.sync_stats = sync_stats

    def score(self, logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
        return lovasz_softmax(
            logits, target, ignore_index=ignore_index, exact=self.exact, sync=self.sync_stats
        )
