"""Region-based losses: surrogates of the intersection over union."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmseg.registry import MODELS
from torch import Tensor

from ..functional import lovasz_softmax, soft_iou_loss, soft_sums
from ..functional.class_nll import compute_dtype
from .base import SegmentationLoss


class RegionLoss(SegmentationLoss):
    """Base of the losses that score regions: they take no weight per pixel.

    Raises:
        ValueError: When the head passes a weight per pixel.
    """

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int
    ) -> Tensor:
        if pixel_weight is not None:
            raise ValueError(
                f'{type(self).__name__} scores regions, so it has no weight per pixel: '
                'remove the sampler of the decode head'
            )
        return self.score(logits, target, ignore_index)

    def score(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss before ``loss_weight``; what a loss of this family writes."""
        raise NotImplementedError


class SoftCountsLoss(RegionLoss):
    """Base of the region losses that follow from :func:`mmseg_recall.functional.soft_sums`.

    Args:
        sync_stats: Sum over all ranks; each then returns the loss of the whole batch, with W times
            its share of the gradient.
        kwargs: Of :class:`SegmentationLoss`.
    """

    def __init__(self, sync_stats: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sync_stats = sync_stats

    def score(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        sums = soft_sums(logits, target, ignore_index=ignore_index)
        if self.sync_stats and get_world_size() > 1:
            sums = _SumOverRanks.apply(torch.stack([s.double() for s in sums])).unbind()
        return self.from_sums(*sums).to(compute_dtype(logits))

    def from_sums(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        """The loss before ``loss_weight`` from the soft counts, each (C,)."""
        raise NotImplementedError


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks whose gradient is W times the local one: DDP's average then sums it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * get_world_size()


@MODELS.register_module()
class SoftIoULoss(SoftCountsLoss):
    """One minus the soft intersection over union, averaged over the classes present.

        L = 1 - mean_c I_c / U_c
        I_c = sum_{n: y_n = c} p_n^c,    U_c = sum_n p_n^c + N_c - I_c

    over the valid pixels of the batch, and of all ranks with ``sync_stats``.

    Args:
        sync_stats: See :class:`SoftCountsLoss`.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: When the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> SoftIoULoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.6667)

    Source: Rahman & Wang 2016.
    """

    default_name = 'loss_soft_iou'

    def from_sums(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        return soft_iou_loss(intersection, mass + pixels - intersection, pixels)


@MODELS.register_module()
class LovaszSoftmaxLoss(RegionLoss):
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

    Across ranks each rank scores its own pixels.

    Args:
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

    def score(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        return lovasz_softmax(logits, target, ignore_index=ignore_index)
