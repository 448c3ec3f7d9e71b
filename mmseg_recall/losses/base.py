"""What the losses share: the call of a decode head, checks, and reduction across ranks."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import print_log
from torch import Tensor, nn

from ..functional import ClassCounts, class_nll_sums, weighted_mean
from ..functional.checks import check_pixel_weight
from ..functional.class_nll import IMPLS, check_normalization


class SegmentationLoss(nn.Module):
    """Base of the losses: takes part in any mmseg head as ``loss_decode``.

    Convention, for every loss of this package:

    - logits are (N, C, ...), of any floating type; the loss computes in float32 (float64 for
      float64 logits). target is (N, ...) with class ids; pixels with ``ignore_index`` take no
      part; any other id outside [0, C) is a ValueError.
    - The value is finite and connected to the graph for any batch: 0, with zero gradients, when
      no pixel is valid. NaN logits give NaN.

    Args:
        loss_weight: Factor on the loss.
        loss_name: Its name in the log; mmseg adds it to the total if it starts with 'loss'.
        ignore_index: Id of the pixels to leave out, used when the head passes none; None to leave
            out none, which logits with more than 255 classes need.
        use_sigmoid: Only False; accepted so that changing the ``type`` alone works on a config
            written for CrossEntropyLoss.

    Attributes:
        default_name: The loss_name when none is given; a class attribute of each loss.
        running_names: Names of what the loss keeps as it trains: tensors in the state dict, None
            before the first batch. A class attribute. They are no buffers: an EMA of the model
            copies buffers, which these cannot be before they have a size, and ``model.half()``
            would take their digits.

    Raises:
        ValueError: For use_sigmoid=True, or a negative loss_weight.
    """

    default_name: str
    running_names: tuple[str, ...] = ()

    def __init__(
        self,
        loss_weight: float = 1.0,
        loss_name: str | None = None,
        ignore_index: int | None = 255,
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid:
            raise ValueError(
                f'{type(self).__name__} is a softmax loss: use_sigmoid must be False. '
                'Heads with independent sigmoid outputs are not supported'
            )
        if not loss_weight >= 0:
            raise ValueError(f'loss_weight must be >= 0, got {loss_weight}')
        self.loss_weight = loss_weight
        self.loss_name = loss_name or self.default_name
        self.ignore_index = ignore_index

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss of one batch, as decode heads call it.

        Args:
            logits: (N, C, ...).
            target: (N, ...).
            weight: (N, ...), a factor per pixel (from a head's pixel sampler), or None.
            ignore_index: Overrides the constructor's, unless None.
            reduction_override: 'none' is what a sampler asks for that needs a loss per pixel;
                'mean' is what these losses give.
            kwargs: What else a head passes (avg_factor, ...); not used.

        Returns:
            Scalar, float32 (float64 for float64 logits).

        Raises:
            ValueError: A reduction_override but 'mean'; shapes, labels and weights that do not
                fit; the default ignore_index where 255 is a class.
        """
        if reduction_override == 'none':
            raise ValueError(
                f'{type(self).__name__} has no value per pixel, which OHEMPixelSampler without '
                'thresh asks for: give the sampler of the decode head a thresh (mmseg uses 0.7), '
                'or remove the sampler'
            )
        if reduction_override not in (None, 'mean'):
            raise ValueError(
                f'{type(self).__name__} has a mean only: '
                f"reduction_override must be 'mean' or None, got {reduction_override!r}"
            )
        ignore = self.ignore_index if ignore_index is None else ignore_index
        if ignore_index is None and ignore == 255 < logits.shape[1]:
            raise ValueError(
                f'ignore_index of {type(self).__name__} is 255, which is one of the '
                f'{logits.shape[1]} classes of the logits and would be left out: give '
                'ignore_index=None, or an id that is no class'
            )
        weight = check_pixel_weight(weight, logits, target)
        return self.loss_weight * self.compute(logits, target, weight, ignore)

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        """The loss before ``loss_weight``; what a loss of its own kind writes."""
        raise NotImplementedError

    def running(self, name: str, like: Tensor) -> Tensor | None:
        """A tensor of ``running_names``, with like's type and device; None to start afresh."""
        value = getattr(self, name)
        if value is None:
            return None
        if value.shape != like.shape:
            print_log(
                f'{name} of {type(self).__name__} was loaded for {len(value)} classes and the '
                f'logits have {len(like)}: the loss starts afresh',
                logger='current',
                level=logging.WARNING,
            )
            if self.training:
                for each in self.running_names:
                    setattr(self, each, None)
            return None
        return value.to(like)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.running_names:
            if getattr(self, name) is not None:
                destination[prefix + name] = getattr(self, name)

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        rest = local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, *rest)
        for name in self.running_names:
            saved = state_dict.get(prefix + name)
            if saved is not None:
                # Checkpoints had an empty one before the first batch.
                setattr(self, name, saved.clone() if saved.numel() else None)
            if prefix + name in unexpected_keys:
                unexpected_keys.remove(prefix + name)


class ClassWeightedLoss(SegmentationLoss):
    """Cross-entropy with a weight per class: what a loss of this family writes is the weight.

        L = - (1 / N) sum_n w_{y_n} log p_n        (normalization='pixels')
        L = - sum_n w_{y_n} log p_n / sum_n w_{y_n}   (normalization='weights')

    The weight is a constant for the gradient.

    Across W ranks the counts, hence the weights and N, are those of the whole batch, and each
    rank returns W times its share of the sum, so that the averaged gradient is that of the whole
    batch on one process, whatever the split. One collective of 3 C integers a step.

    Args:
        normalization: 'pixels' divides by the number of valid pixels, so that weights of 1 give
            mean cross-entropy; 'weights' by the sum of the weights, as F.cross_entropy does.
        sync_stats: Sum the counts over all ranks. With False each rank is on its own.
        impl: See :func:`mmseg_recall.functional.class_nll_sums`.
        kwargs: Of :class:`SegmentationLoss`.

    Attributes:
        last_counts: ClassCounts of the last batch, over all ranks, for hooks that log.
        last_weight: Its class weights (C,), float64; NaN for a class without a pixel in it.
    """

    # Whether the value follows from class_nll_sums alone, which the fused tail asks. Decided when
    # the class is made: in a compiled graph torch 2.4 does not recognise a method.
    has_class_sums = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.has_class_sums = (cls.compute, cls.forward) == (
            ClassWeightedLoss.compute,
            ClassWeightedLoss.forward,
        )

    def __init__(
        self,
        normalization: str = 'pixels',
        sync_stats: bool = True,
        impl: str = 'auto',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_normalization(normalization)
        if impl not in IMPLS:
            raise ValueError(f'impl must be one of {IMPLS}, got {impl!r}')
        self.normalization = normalization
        self.sync_stats = sync_stats
        self.impl = impl
        self.last_counts: ClassCounts | None = None
        self.last_weight: Tensor | None = None

    def class_weight(self, counts: ClassCounts) -> Tensor:
        """Weight of each class, (C,), for a batch with these counts."""
        raise NotImplementedError

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        sums, counts = class_nll_sums(
            logits,
            target,
            ignore_index=ignore_index,
            pixel_weight=pixel_weight,
            impl=self.impl,
        )
        return self.from_sums(sums, counts)

    def from_sums(self, sums: Tensor, counts: ClassCounts) -> Tensor:
        """The loss before ``loss_weight`` from what :func:`class_nll_sums` returns."""
        world_size = 1
        if self.sync_stats and get_world_size() > 1:
            world_size = get_world_size()
            counts = sum_counts_over_ranks(counts)
        weight = self.class_weight(counts)
        self.last_counts = counts
        self.last_weight = torch.where(counts.pixels > 0, weight.detach(), float('nan'))
        return world_size * weighted_mean(sums, weight, counts.pixels, self.normalization)


def sum_counts_over_ranks(counts: ClassCounts) -> ClassCounts:
    """Add up the counts of all ranks, in one collective."""
    total = torch.stack(counts)
    all_reduce(total)
    return ClassCounts(*total)


def mean_over_ranks(losses: Tensor, num_pixels: Tensor, sync_stats: bool) -> Tensor:
    """W times this rank's share of the mean over the valid pixels of all ranks.

    Args:
        losses: One a pixel of this rank, 0 at those that are not valid.
        num_pixels: Its valid pixels.
        sync_stats: With False the rank is on its own: the mean over its pixels.
    """
    world_size = 1
    if sync_stats and get_world_size() > 1:
        world_size = get_world_size()
        all_reduce(num_pixels)
    return world_size * losses.sum() / num_pixels.clamp_min(1)
