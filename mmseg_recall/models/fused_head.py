"""Decode heads that score their logits without upsampling them first."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.utils import SampleList
from torch import Tensor, nn

from ..config import component_class, heads, rename
from ..functional import ClassCounts, resized_class_nll_sums
from ..functional.lovasz import resized_class_nll_sums_and_lovasz
from ..losses import ClassWeightedLoss, LovaszSoftmaxLoss
from .mixed import register_mixed

Head: Any = object  # what it is mixed into: its attributes are those of BaseDecodeHead


class FusedTail(Head):
    """Mixin for a decode head: its loss never makes the full-resolution logits.

    The stock ``loss_by_feat`` upsamples the logits to the size of the labels, hands them to every
    loss, and ranks them once more for ``acc_seg``. Here the low-resolution logits are upsampled,
    scored and differentiated tile by tile (:func:`mmseg_recall.functional.resized_class_nll_sums`):
    the same numbers in a fraction of the time and memory. The state dict is that of the head.

    It serves any number of losses of the cross-entropy family: ours with a weight per class
    (:class:`ClassWeightedLoss`), in a head of one channel, too, and mmseg's softmax
    ``CrossEntropyLoss``; and one :class:`LovaszSoftmaxLoss` that counts. With any other loss, or a
    pixel sampler, the head does what it did before.

    For every stock head that it fits, ``Fused`` + its name is registered, so that one line turns
    it on: ``decode_head=dict(type='FusedASPPHead')``. For a head of your own:
    ``class MyFusedHead(FusedTail, MyHead)``.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses by name, and ``acc_seg`` in per cent, from the head's own output (N, C, h, w)."""
        own = self.loss_decode
        losses: list[Any] = list(own) if isinstance(own, nn.ModuleList) else [own]
        lovasz = [x for x in losses if type(x) is LovaszSoftmaxLoss and not x.exact]
        lovasz = [loss for loss in lovasz if not _has_hooks(loss)]
        known = all(loss in lovasz or _is_class_weighted(loss) for loss in losses)
        if not (known and len(lovasz) <= 1 and self._scores_pixels_alike(losses)):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        target = self._stack_batch_gt(batch_data_samples).squeeze(1)
        if self.out_channels == 1:
            seg_logits = torch.cat([torch.zeros_like(seg_logits), seg_logits], dim=1)
        options: Any = dict(align_corners=self.align_corners, ignore_index=self.ignore_index)
        of_lovasz: Any = None
        if lovasz:
            options['sync'] = lovasz[0].sync_stats
            sums, of_lovasz, counts = resized_class_nll_sums_and_lovasz(
                seg_logits, target, **options
            )
        else:
            sums, counts = resized_class_nll_sums(seg_logits, target, **options)
        results: dict[str, Tensor] = {}
        for loss in losses:
            value = loss.loss_weight * (
                of_lovasz if loss in lovasz else _loss_from_sums(loss, sums, counts, target.numel())
            )
            name = loss.loss_name
            results[name] = results[name] + value if name in results else value
        results['acc_seg'] = _accuracy(counts)
        return results

    def _scores_pixels_alike(self, losses: list[Any]) -> bool:
        # Only our losses take one channel z as the logits (0, z).
        takes_channels = self.out_channels > 1 or not any(
            type(x) is CrossEntropyLoss for x in losses
        )
        return self.sampler is None and self.ignore_index is not None and takes_channels


def _has_hooks(loss: Any) -> bool:
    return bool(loss._forward_hooks or loss._forward_pre_hooks)


def _is_class_weighted(loss: Any) -> bool:
    """Whether the value of the loss follows from sums and counts per class."""
    if _has_hooks(loss):
        return False
    if isinstance(loss, ClassWeightedLoss):
        return type(loss).has_class_sums and loss.impl != 'plain'
    return (
        type(loss) is CrossEntropyLoss
        and not (loss.use_sigmoid or loss.use_mask)
        and loss.class_weight is None
        and loss.reduction == 'mean'
    )


def _loss_from_sums(loss: Any, sums: Tensor, counts: ClassCounts, num_pixels: int) -> Tensor:
    if isinstance(loss, ClassWeightedLoss):
        return loss.from_sums(sums, counts)
    if loss.avg_non_ignore:
        return sums.sum() / (counts.pixels.sum() + torch.finfo(torch.float32).eps)
    return sums.sum() / num_pixels


def _accuracy(counts: ClassCounts) -> Tensor:
    """What ``mmseg.models.losses.accuracy`` returns: shape (1,), float32, 0 without pixels."""
    eps = torch.finfo(torch.float32).eps
    pixels, hits = counts.pixels.sum().float(), counts.true_positives.sum().float()
    return ((hits + eps) * (100.0 / (pixels + eps))).unsqueeze(0)


def fuse_tails(cfg: Config) -> Config:
    """Replace the type of every decode and auxiliary head by its fused one, where there is one.

    Args:
        cfg: A config with ``model``; it is left as it is.

    Returns:
        A copy of ``cfg``. Fusing it again changes nothing.

    Example:
        >>> head = dict(type='FCNHead')
        >>> fuse_tails(Config(dict(model=dict(decode_head=head)))).model.decode_head.type
        'FusedFCNHead'
    """
    cfg = copy.deepcopy(cfg)
    for head in heads(cfg.model).values():
        fused = FUSED.get(component_class(head))
        if fused is not None:
            rename(head, fused.__name__)
    return cfg


# The heads whose loss is BaseDecodeHead's; module attributes, so that a model can be pickled.
FUSED = register_mixed(
    FusedTail,
    'Fused',
    BaseDecodeHead,
    lambda head: head.loss_by_feat is BaseDecodeHead.loss_by_feat,
)
globals().update({fused.__name__: fused for fused in FUSED.values()})
