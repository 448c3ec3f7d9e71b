"""Online hard example mining: the hardest pixels alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..functional import checked_pixel_nll, hardest_mean
from .base import SegmentationLoss, times_pixel_weight


class OHEMLoss(SegmentationLoss):
    """Online hard example mining: mean cross-entropy of the hardest valid pixels of the batch.

    The k = ceil(ratio N) pixels of highest loss among all N valid pixels of the batch take part;
    pixels that tie for the last places share them. Across W ranks the k are those of the whole
    batch, and each rank returns W times its share of the mean.

    Args:
        ratio: Share of the valid pixels to keep, in (0, 1].
        sync_stats: Find the k over all ranks. With False each rank finds its own.
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

    def __init__(self, ratio: float = 0.7, sync_stats: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < ratio <= 1:
            raise ValueError(f'ratio must be in (0, 1], got {ratio}')
        self.ratio = ratio
        self.sync_stats = sync_stats

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        nll, valid = checked_pixel_nll(logits, target, ignore_index)
        losses = times_pixel_weight(nll, valid, pixel_weight)
        return hardest_mean(losses, valid, self.ratio, sync=self.sync_stats)
