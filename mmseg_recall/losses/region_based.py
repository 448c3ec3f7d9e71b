"""Region-based losses: surrogates of the intersection over union."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmseg.registry import MODELS
from torch import Tensor

from ..functional import lovasz_softmax, soft_sums, tversky_distance
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


AVERAGES = ('batch', 'image', 'class')


class SoftCountsLoss(RegionLoss):
    """Base of the losses that are a mean of d_c, a distance from the soft counts of a class.

        L = mean_c d_c                     (average='batch')
        L = mean_i mean_{c in i} d_ic      (average='image')
        L = mean_c mean_{i: c in i} d_ic   (average='class')

    with d_c of the counts of the whole batch, d_ic of those of image i, over the classes with
    pixels there, valid pixels only; an image without a valid pixel takes no part. The three follow
    the mIoU^D, mIoU^I and mIoU^C of the paper, a batch standing for the data set.

    Args:
        average: 'batch', where large objects decide; 'image', where every image counts the same;
            'class', where every class does.
        sync_stats: Over all ranks. For 'batch' the soft counts are summed and each rank returns
            the loss of the whole batch, with W times its share of the gradient. For the others
            only numbers of images are summed, those with a valid pixel or those of each class, and
            each rank returns W times its share of the loss.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: An unknown average.

    Source: Wang et al. 2023, "Revisiting Evaluation Metrics for Semantic Segmentation", for the
    averages.
    """

    def __init__(self, average: str = 'batch', sync_stats: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if average not in AVERAGES:
            raise ValueError(f'average must be one of {AVERAGES}, got {average!r}')
        self.average = average
        self.sync_stats = sync_stats

    def score(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        per_image = self.average != 'batch'
        sums = soft_sums(logits, target, ignore_index=ignore_index, per_image=per_image)
        world_size = get_world_size() if self.sync_stats else 1
        if world_size > 1 and not per_image:
            sums = _SumOverRanks.apply(torch.stack([s.double() for s in sums])).unbind()
        distance, present = self.distance(*sums), sums[2] > 0
        if not per_image:
            loss = distance.sum() / present.sum().clamp_min(1)
            return loss.to(compute_dtype(logits))
        num_images = present.sum(0) if self.average == 'class' else present.any(1).sum()
        if world_size > 1:
            all_reduce(num_images)
        if self.average == 'class':
            num_terms = num_images * (num_images > 0).sum()
        else:
            num_terms = num_images * present.sum(1, keepdim=True)
        return world_size * (distance / num_terms.clamp_min(1)).sum()

    def distance(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        """What is averaged, from the soft counts, each (C,) or (N, C); 0 where pixels is 0."""
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

        L = mean_c (1 - I_c / U_c)
        I_c = sum_{n: y_n = c} p_n^c,    U_c = sum_n p_n^c + N_c - I_c

    over the valid pixels of the batch, or of each image; see :class:`SoftCountsLoss`.

    Args:
        average: See :class:`SoftCountsLoss`.
        sync_stats: See :class:`SoftCountsLoss`.
        kwargs: Of :class:`SegmentationLoss`.

    Raises:
        ValueError: An unknown average; when the head passes a weight per pixel.

    Example:
        >>> import torch
        >>> SoftIoULoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.6667)

    Source: Rahman & Wang 2016; Wang et al. 2023 for the averages over images.
    """

    default_name = 'loss_soft_iou'

    def distance(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        return tversky_distance(intersection, mass, pixels, alpha=1, beta=1)


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
