"""What the losses share: the call of a decode head, checks, and reduction across ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import (
    ClassCounts,
    as_class_logits,
    soft_sums,
    sum_over_ranks,
    weighted_mean,
)
from ..functional.checks import check_pixel_weight, compute_dtype, widest
from ..functional.class_nll import check_normalization, weighted_nll
from ..functional.engines import IMPLS
from ..functional.ranks import differentiable_sum_over_ranks, num_ranks
from .class_counts import (
    ClassCountsSource,
    check_class_names,
    load_class_counts,
    load_class_names,
)
from .schedule import Schedule


class SegmentationLoss(nn.Module):
    """Base of the losses: takes part in any mmseg head as ``loss_decode``.

    Convention, for every loss of this package:

    - logits are (N, C, ...), of any floating type; the loss computes in float32 (float64 for
      float64 logits). target is (N, ...) with class ids; pixels with ``ignore_index`` take no
      part; any other id outside [0, C) is a ValueError.
    - One channel z is two classes with the logits (0, z), the same model: (N, 1, ...) or
      (N, H, W) logits, and labels 0 and 1.
    - The value is finite and connected to the graph for any batch: 0, with zero gradients, when
      no pixel is valid. NaN logits give NaN.

    Args:
        loss_weight: Factor on the loss.
        loss_name: Its name in the log; mmseg adds it to the total if it starts with 'loss'.
        ignore_index: Id of the pixels to leave out, used when the head passes none; None to leave
            out none, which logits with more than 255 classes need.
        use_sigmoid: True refuses logits of more than one channel: independent sigmoids have no
            argmax, hence no recall. One channel is taken with either.

    Attributes:
        default_name: The loss_name when none is given; a class attribute of each loss.
        running_names: Names of what the loss keeps as it trains: tensors in the state dict, None
            before the first batch. A class attribute. They are no buffers: an EMA of the model
            copies buffers, which these cannot be before they have a size, and ``model.half()``
            would take their digits.

    Raises:
        ValueError: For a negative loss_weight.
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
        if not loss_weight >= 0:
            raise ValueError(f'loss_weight must be >= 0, got {loss_weight}')
        self.loss_weight = loss_weight
        self.use_sigmoid = use_sigmoid
        self.loss_name = loss_name or self.default_name
        self.ignore_index = ignore_index
        self._foreground_seen = False

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
            logits: (N, C, ...); of two classes also (N, 1, ...) or (N, H, W).
            target: (N, ...); of one channel also of the shape of the logits.
            weight: Like target, a factor per pixel (from a head's pixel sampler), or None.
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
        logits, target = as_class_logits(logits, target, self.use_sigmoid)
        ignore = self.ignore_index if ignore_index is None else ignore_index
        if ignore_index is None and ignore == 255 < logits.shape[1]:
            raise ValueError(
                f'ignore_index of {type(self).__name__} is 255, which is one of the '
                f'{logits.shape[1]} classes of the logits and would be left out: give '
                'ignore_index=None, or an id that is no class'
            )
        if ignore == 255 and logits.shape[1] == 2 and not self._foreground_seen:
            self._look_for_foreground(target)
        loss = self.compute(logits, target, weight, ignore)
        return loss if self.loss_weight == 1 else self.loss_weight * loss

    def _look_for_foreground(self, target: Tensor) -> None:
        # Of a mask of 0 and 255 all of the foreground is ignored. On CUDA looking would wait for
        # the device; the weight of class 1 is logged as NaN there, as here.
        if torch.compiler.is_compiling() or target.is_cuda:
            return
        self._foreground_seen = bool((target == 1).any())
        if not self._foreground_seen and (target == 255).any():
            self._foreground_seen = True  # to say it once
            warnings.warn(
                f'the first batch of {type(self).__name__} has no label 1, and its labels 255 are '
                'ignored: if 255 is the foreground of a mask, give (mask > 0).long()',
                stacklevel=3,
            )

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
            warnings.warn(
                f'{name} of {type(self).__name__} was loaded for {len(value)} classes and the '
                f'logits have {len(like)}: the loss starts afresh',
                stacklevel=2,
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
        schedule: Arguments of :class:`~mmseg_recall.losses.schedule.Schedule`: weights that move
            from or to 1 as the training goes on. Their batches are counted in the checkpoint.
        kwargs: Of :class:`SegmentationLoss`.

    Attributes:
        last_counts: ClassCounts of the last batch, over all ranks, for hooks that log.
        batches: Training batches so far, () int64; None before the first, and without a schedule.

    Raises:
        ValueError: An unknown normalization or impl; a schedule that is none.
    """

    # Whether the value follows from class_nll_sums alone, which the fused tail asks. Decided when
    # the class is made: in a compiled graph torch 2.4 does not recognise a method.
    has_class_sums = True
    running_names: tuple[str, ...] = ('batches',)

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
        schedule: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_normalization(normalization)
        if impl not in IMPLS:
            raise ValueError(f'impl must be one of {IMPLS}, got {impl!r}')
        self.normalization = normalization
        self.sync_stats = sync_stats
        self.impl = impl
        self.schedule = None if schedule is None else Schedule(**schedule)
        if self.schedule is not None:
            self.schedule.check()
        self.batches: Tensor | None = None
        self.last_counts: ClassCounts | None = None
        self._last_weight = torch.empty(0)
        self._num_ranks = 1

    def class_weight(self, counts: ClassCounts) -> Tensor:
        """Weight of each class, (C,), for a batch with these counts."""
        raise NotImplementedError

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        options = ignore_index, pixel_weight, self.impl, self._weigh, self.normalization
        return self._over_ranks(weighted_nll(logits, target, *options))

    def from_sums(self, sums: Tensor, counts: ClassCounts) -> Tensor:
        """The loss before ``loss_weight`` from what :func:`class_nll_sums` returns."""
        return self._over_ranks(weighted_mean(sums, *self._weigh(counts), self.normalization))

    def _over_ranks(self, value: Tensor) -> Tensor:
        # Asked once a step, by _weigh.
        return value if self._num_ranks == 1 else self._num_ranks * value

    def _weigh(self, counts: ClassCounts) -> tuple[Tensor, Tensor]:
        ranks = num_ranks(self.sync_stats)
        if ranks > 1:
            counts = ClassCounts(*sum_over_ranks(torch.stack(counts))[0])
        weight = self.class_weight(counts)
        if self.schedule is not None:
            weight = self._scheduled(weight, self.schedule)
        weight = weight.detach()
        # Not by nn.Module.__setattr__, which looks each up among parameters and modules.
        self.__dict__.update(last_counts=counts, _last_weight=weight, _num_ranks=ranks)
        return weight, counts.pixels

    def _scheduled(self, weight: Tensor, schedule: Schedule) -> Tensor:
        none = torch.zeros((), dtype=torch.long, device=weight.device)
        batches = self.running('batches', none)
        batches = none if batches is None else batches
        if self.training:
            self.batches = batches + 1
        return torch.lerp(torch.ones_like(weight), weight, schedule.mix(batches).to(weight))

    @property
    def last_weight(self) -> Tensor | None:
        """The class weights of the last batch, (C,); NaN for a class without a pixel in it."""
        if self.last_counts is None:
            return None
        return torch.where(self.last_counts.pixels > 0, self._last_weight, float('nan'))


def times_pixel_weight(losses: Tensor, valid: Tensor, pixel_weight: Tensor | None) -> Tensor:
    """Losses per pixel times the weight of the pixel, which may be NaN where it takes no part."""
    if pixel_weight is None:
        return losses
    return losses * torch.where(valid, check_pixel_weight(pixel_weight, losses, losses), 0.0)


def mean_over_ranks(losses: Tensor, num_pixels: Tensor, sync_stats: bool) -> Tensor:
    """W times this rank's share of the mean over the valid pixels of all ranks.

    Args:
        losses: One a pixel of this rank, 0 at those that are not valid.
        num_pixels: Its valid pixels.
        sync_stats: With False the rank is on its own: the mean over its pixels.
    """
    num_pixels, world_size = sum_over_ranks(num_pixels, sync_stats)
    return world_size * losses.sum() / num_pixels.clamp_min(1)


class ClassCountsLoss(SegmentationLoss):
    """Base of the losses that know how many pixels of each class the training set has.

    Args:
        class_counts: Pixels of each class in the training set: a list, an array, a tensor, or the
            path of the JSON file that ``tools/class_statistics.py CONFIG`` writes. Required.
        num_classes: C, to refuse counts of another length at once instead of at the first batch;
            the swap of losses in a config gives that of the head.
        kwargs: Of :class:`SegmentationLoss`.

    Attributes:
        class_counts: N_c, (C,) float64.
        class_names: Those of the file, which CheckDatasetHook compares with the data set's; None
            where it names none.

    Raises:
        ValueError: No counts, counts that are negative, not finite or all zero, or not
            ``num_classes`` many; at the first batch, not as many as the logits have classes.
        FileNotFoundError: No such file; the message is the command that writes it.
    """

    def __init__(
        self,
        class_counts: ClassCountsSource | None = None,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if class_counts is None:
            raise ValueError(
                f'{type(self).__name__} needs class_counts, the pixels of each class in the '
                'training set: a list, or the file that '
                '`python tools/class_statistics.py CONFIG` writes'
            )
        self.source = class_counts if isinstance(class_counts, (str, Path)) else 'the list given'
        self.class_counts = load_class_counts(class_counts)
        self.class_names = load_class_names(class_counts)
        if num_classes is not None:
            self.check_length(num_classes, 'num_classes is')

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassCountsLoss:
        kept = {name: value for name, value in self._buffers.items() if value is not None}
        # Weights go where the model goes, but float16 has not the range for them, and not every
        # device has float64.
        self._buffers.update({name: value.float() for name, value in kept.items()})
        super()._apply(fn, recurse)
        for name, value in kept.items():
            self._buffers[name] = value.to(widest(getattr(self, name)))
        return self

    def check_length(self, num_classes: int, which: str = 'the logits have') -> None:
        """Raise ValueError unless there are counts of ``num_classes`` classes."""
        if len(self.class_counts) != num_classes:
            raise ValueError(
                f'class_counts of {type(self).__name__} ({self.source}) has '
                f'{len(self.class_counts)} classes, {which} {num_classes}. Run '
                '`python tools/class_statistics.py CONFIG` for this data set'
            )

    def check_names(self, classes: Sequence[str]) -> None:
        """Raise ValueError if the counts came with the names of other classes than these."""
        where = f'class_counts of {type(self).__name__} ({self.source})'
        check_class_names(self.class_names, classes, where)


class StatisticsBalancedLoss(ClassCountsLoss, ClassWeightedLoss):
    """Base of the losses whose class weights are fixed before training.

    Args:
        exponent: e in [0, 1]; the weight of a class seen becomes w_c^e: 0 is plain cross-entropy,
            1/2 the square root, 1 the weight itself.
        kwargs: Of :class:`ClassCountsLoss` and :class:`ClassWeightedLoss`.

    Raises:
        ValueError: exponent outside [0, 1]; see :class:`ClassCountsLoss` for the counts.
    """

    weight: Tensor

    def __init__(
        self, class_counts: ClassCountsSource | None = None, exponent: float = 1.0, **kwargs: Any
    ) -> None:
        if not 0 <= exponent <= 1:
            raise ValueError(
                f'exponent must be in [0, 1], from plain cross-entropy to the weights of '
                f'{type(self).__name__}, got {exponent}'
            )
        super().__init__(class_counts, **kwargs)
        weight = self.static_weight(self.class_counts)
        weight = torch.where(weight > 0, weight**exponent, 0.0)
        self.register_buffer('weight', weight, persistent=False)

    def static_weight(self, pixels: Tensor) -> Tensor:
        """Weight of each class, (C,), from the pixels of each class, (C,) float64."""
        raise NotImplementedError

    def class_weight(self, counts: ClassCounts) -> Tensor:
        self.check_length(len(counts.pixels))
        return self.weight


class RegionLoss(SegmentationLoss):
    """Base of the losses that score regions: they take no weight per pixel.

    Raises:
        ValueError: When the head passes a weight per pixel.
    """

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        if pixel_weight is not None:
            raise ValueError(
                f'{type(self).__name__} scores regions, so it has no weight per pixel: '
                'remove the sampler of the decode head'
            )
        return self.score(logits, target, ignore_index)

    def score(self, logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
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

    def score(self, logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
        per_image = self.average != 'batch'
        sums: tuple[Tensor, ...] = soft_sums(
            logits, target, ignore_index=ignore_index, per_image=per_image
        )
        if not per_image and num_ranks(self.sync_stats) > 1:
            total = torch.stack([widest(s) for s in sums])
            sums = differentiable_sum_over_ranks(total, self.sync_stats).unbind()
        distance, present = self.distance(*sums), sums[2] > 0
        if not per_image:
            loss = distance.sum() / present.sum().clamp_min(1)
            return loss.to(compute_dtype(logits))
        num_images = present.sum(0) if self.average == 'class' else present.any(1).sum()
        num_images, world_size = sum_over_ranks(num_images, self.sync_stats)
        if self.average == 'class':
            num_terms = num_images * (num_images > 0).sum()
        else:
            num_terms = num_images * present.sum(1, keepdim=True)
        return world_size * (distance / num_terms.clamp_min(1)).sum()

    def distance(self, intersection: Tensor, mass: Tensor, pixels: Tensor) -> Tensor:
        """What is averaged, from the soft counts, each (C,) or (N, C); 0 where pixels is 0."""
        raise NotImplementedError
