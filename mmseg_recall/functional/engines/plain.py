"""The reference: torch operations, on any device, differentiable any number of times."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import compute_dtype, valid_pixels, widest
from ..counts import count_classes, count_labels
from ..lovasz_bins import (
    COARSE,
    HARDEST,
    NOT_RANKED,
    Layout,
    bins_of,
    bits_of,
    lay_bins,
    rank_hardest,
    score_bins,
)
from ..ranks import sum_over_ranks
from .engine import Engine
from .rows import as_rows, pixel_rows

STRIPS = 1024


def nll_of_valid(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """-log p of the true class per pixel, shape of target; 0 where ``valid`` is False."""
    log_p = F.log_softmax(logits.to(compute_dtype(logits)), dim=1)
    safe_target = torch.where(valid, target, 0).unsqueeze(1)
    return torch.where(valid, -log_p.gather(1, safe_target).squeeze(1), 0.0)


def sum_per_class(values: Tensor, target: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Sum per-pixel ``values`` over the valid pixels of each class, to the digits of their type.

    Accumulated in float64, or on devices that have none in strips, so that no sum is of many.
    """
    labels = torch.where(valid, target, num_classes).flatten()
    added = widest(values).flatten()
    strips = 1 if added.dtype == torch.float64 else STRIPS
    if strips > 1:
        strip = torch.arange(len(labels), device=labels.device) % strips
        labels = labels + (num_classes + 1) * strip
    sums = added.new_zeros(strips * (num_classes + 1)).index_add(0, labels, added)
    return sums.view(strips, num_classes + 1).sum(0)[:-1].to(values.dtype)


def _pixel_nll(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    return nll_of_valid(logits, target, valid), valid


def _class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, pixel_weight: Tensor | None
) -> tuple[Tensor, ...]:
    num_classes = logits.shape[1]
    nll, valid = _pixel_nll(logits, target, ignore_index)
    if pixel_weight is not None:
        nll = nll * pixel_weight
    counts = count_classes(logits.detach().argmax(dim=1), target, num_classes, valid)
    return sum_per_class(nll, target, valid, num_classes), *counts


def _resized_class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> tuple[Tensor, ...]:
    return _class_sums(resized(logits, target, align_corners), target, ignore_index, None)


def resized(logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
    """The logits in the computing type and the size of the target."""
    logits = logits.to(compute_dtype(logits))
    return F.interpolate(logits, target.shape[1:], mode='bilinear', align_corners=align_corners)


def _soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1)
    p_true = p.gather(1, torch.where(valid, target, 0).unsqueeze(1)).squeeze(1)
    mass = torch.where(valid.unsqueeze(1), p, 0.0)
    # Each class of each image is counted as a class of its own.
    num_images = len(logits) if per_image else 1
    if per_image:
        image = torch.arange(num_images, device=target.device).view(-1, *[1] * (target.dim() - 1))
        target = num_classes * image + target
        mass = mass.flatten(2).sum(2)
    else:
        mass = mass.transpose(0, 1).flatten(1).sum(1).unsqueeze(0)
    size = num_images * num_classes
    intersection = sum_per_class(p_true, target, valid, size).view(num_images, num_classes)
    pixels = count_labels(torch.where(valid, target, size), size + 1)[:-1].view_as(mass)
    return intersection, mass, pixels


def _adjusted_nll(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    adjustment: Tensor,
    q: float,
) -> tuple[Tensor, Tensor]:
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    labels = torch.where(valid, target, 0)
    logits = logits.to(compute_dtype(logits))
    # The logarithm of a ratio of probabilities is a difference of logits.
    difference = logits - logits.detach().gather(1, labels.unsqueeze(1))
    compensated = difference + q * difference.detach().clamp_min(0.0)
    added = adjustment_of(labels, adjustment)
    # Large logits have no digits left for the adjustment: only their differences have.
    counted = torch.where(added.isneginf(), added, compensated.detach())
    adjusted = compensated - counted.amax(dim=1, keepdim=True) + added
    nll = nll_of_valid(adjusted, target, valid)
    return (nll if pixel_weight is None else nll * pixel_weight).sum(), valid.sum()


def adjustment_of(labels: Tensor, adjustment: Tensor) -> Tensor:
    """The (C, C) or (C, 1) adjustment at labels (N, ...), to broadcast with the logits."""
    if adjustment.shape[1] == 1:
        return adjustment.view(-1, *[1] * (labels.dim() - 1))
    return adjustment.t()[labels].movedim(-1, 1)


def class_chunks(num_classes: int) -> list[slice]:
    """The classes in at most 16 parts: what is made for one part at a time is small beside p."""
    size = -(-num_classes // 16)
    return [slice(c, min(c + size, num_classes)) for c in range(0, num_classes, size)]


def _of_label(p: Tensor, target: Tensor, valid: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(classes, their errors, where they are the label) of p, (N, C, pixels); -1 if not valid.

    The error of the label is the sum of the others, which has the digits of 1 - p that a
    subtraction loses near p = 1.
    """
    target, valid = pixel_rows(target).unsqueeze(1), pixel_rows(valid).unsqueeze(1)
    classes = torch.arange(p.shape[1], device=p.device).view(1, -1, 1)
    chunks = class_chunks(p.shape[1])
    missed = sum(
        p[:, c].masked_fill(target == classes[:, c], 0.0).sum(1, keepdim=True) for c in chunks
    )
    for c in chunks:
        is_label = target == classes[:, c]
        errors = torch.where(is_label, missed, p[:, c]).clamp_max_(1.0)
        yield c, errors.masked_fill_(~valid, -1.0), is_label


def _lovasz_counts(p: Tensor, target: Tensor, valid: Tensor, layout: Layout | None) -> Tensor:
    """Of background and foreground in each bin: (2, C, COARSE), or with a layout (2, bins + 1)."""
    shape = (p.shape[1], COARSE) if layout is None else (len(layout.middle) + 1,)
    size = math.prod(shape)
    counts = torch.zeros(2 * size, dtype=torch.int64, device=p.device)
    one = torch.ones((), dtype=torch.int64, device=p.device)
    for classes, errors, is_label in _of_label(p, target, valid):
        bins = bins_of(errors, classes, layout).add_(is_label, alpha=size).flatten()
        counts.scatter_add_(0, bins, one.expand_as(bins))
    return counts.view(2, *shape)


def _lovasz_hardest(
    p: Tensor, target: Tensor, valid: Tensor, layout: Layout, lowest: Tensor
) -> tuple[Tensor, Tensor]:
    """(C, n) the keys of the pixels to be ranked, and which pixels these are."""
    keys, pixels = [], []
    for classes, errors, is_label in _of_label(p, target, valid):
        errors, is_label = (x.transpose(0, 1).flatten(1) for x in (errors, is_label))
        errors, at = errors.topk(min(HARDEST, errors.shape[1]))
        bins = bins_of(errors.unsqueeze(0), classes, layout)[0]
        is_ranked = (bins >= lowest[classes].unsqueeze(1)) & (bins < len(layout.middle))
        key = 2 * bits_of(errors) + is_label.gather(1, at)
        keys.append(torch.where(is_ranked, key, NOT_RANKED).int())
        pixels.append(at)
    return torch.cat(keys), torch.cat(pixels)


def _lovasz_slopes(
    p: Tensor, target: Tensor, valid: Tensor, layout: Layout, slopes: Tensor
) -> Tensor:
    """dL/dp, of the shape of p."""
    grad_p = torch.empty_like(p)
    for classes, errors, is_label in _of_label(p, target, valid):
        bins = bins_of(errors, classes, layout).add_(is_label, alpha=slopes.shape[1])
        grad_p[:, classes] = slopes.flatten()[bins]
    return grad_p


def _lovasz_softmax(logits: Tensor, target: Tensor, ignore_index: int | None, sync: bool) -> Tensor:
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    p = softmax_of_valid(logits, valid)
    with torch.no_grad():
        layout = lay_bins(sum_over_ranks(_lovasz_counts(p, target, valid, None), sync)[0])
        counts, world_size = sum_over_ranks(_lovasz_counts(p, target, valid, layout), sync)
        value, slopes, lowest = score_bins(counts, layout)
        grad_p = _lovasz_slopes(p, target, valid, layout, slopes)
        keys, pixels = _lovasz_hardest(p, target, valid, layout, lowest)
        bits, slopes = rank_hardest(keys, layout.pixels, sync)
        at = torch.searchsorted(bits, keys >> 1).clamp_max_(bits.shape[1] - 1)
        slopes = slopes.to(p.dtype) / (layout.pixels > 0).sum().clamp_min(1)
        slopes = torch.where(keys & 1 == 1, slopes[1].gather(1, at), slopes[0].gather(1, at))
        rows = grad_p.transpose(0, 1).flatten(1)
        slopes = torch.where(keys < NOT_RANKED, slopes, rows.gather(1, pixels))
        rows = rows.scatter(1, pixels, slopes).mul_(world_size)
        grad_p = rows.view(rows.shape[0], *p.shape[::2]).transpose(0, 1)
    return with_gradient(value, p, grad_p)


def _resized_class_sums_and_lovasz(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool, sync: bool
) -> tuple[Tensor, ...]:
    full = resized(logits, target, align_corners)
    sums, *counts = _class_sums(full, target, ignore_index, None)
    return sums, _lovasz_softmax(full, target, ignore_index, sync), *counts


def softmax_of_valid(logits: Tensor, valid: Tensor) -> Tensor:
    """(N, C, pixels) in the computing type; what a pixel is that is not valid has no part in it."""
    rows = as_rows(logits).masked_fill(~pixel_rows(valid).unsqueeze(1), 0.0)
    return F.softmax(rows.to(compute_dtype(logits)), dim=1)


def with_gradient(value: Tensor, p: Tensor, grad_p: Tensor) -> Tensor:
    """The value, whose gradient with respect to p is grad_p, a constant."""
    surrogate = (p * grad_p).sum()
    return value.to(p.dtype) + (surrogate - surrogate.detach())


PLAIN = Engine(
    _class_sums,
    _resized_class_sums,
    _pixel_nll,
    _soft_counts,
    _adjusted_nll,
    _lovasz_softmax,
    _resized_class_sums_and_lovasz,
)
