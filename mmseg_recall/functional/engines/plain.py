"""The reference: torch operations, on any device, differentiable any number of times."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import compute_dtype, valid_pixels, widest
from ..counts import count_classes, count_labels
from .engine import Engine

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
    full = F.interpolate(
        logits.to(compute_dtype(logits)),
        target.shape[1:],
        mode='bilinear',
        align_corners=align_corners,
    )
    return _class_sums(full, target, ignore_index, None)


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


def _seesaw(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    mitigation: Tensor,
    q: float,
) -> Tensor:
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    labels = torch.where(valid, target, 0)
    logits = logits.to(compute_dtype(logits))
    # The logarithm of a ratio of probabilities is a difference of logits.
    difference = logits - logits.detach().gather(1, labels.unsqueeze(1))
    compensated = difference + q * difference.detach().clamp_min(0.0)
    added = mitigation.t()[labels].movedim(-1, 1)
    # Large logits have no digits left for the mitigation: only their differences have.
    counted = torch.where(added.isneginf(), added, compensated.detach())
    seesaw_logits = compensated - counted.amax(dim=1, keepdim=True) + added
    nll = nll_of_valid(seesaw_logits, target, valid)
    return (nll if pixel_weight is None else nll * pixel_weight).sum()


def _lovasz_softmax(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """One sort of all classes, static shapes, no synchronisation."""
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index).flatten()
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1).transpose(0, 1).flatten(1)
    classes = torch.arange(num_classes, device=logits.device).unsqueeze(1)
    foreground = valid & (target.flatten() == classes)
    errors = torch.where(foreground, 1 - p, p)
    # Invalid pixels sort behind all others: no slope depends on what comes after it.
    order = torch.where(valid, errors.detach(), -1.0).argsort(dim=1, descending=True)
    is_foreground = foreground.gather(1, order)
    hits = is_foreground.cumsum(1)
    pixels = hits[:, -1:]
    rank = torch.arange(1, p.shape[1] + 1, device=p.device)
    # Each step of the Jaccard distance by itself: in a large image it has no digits left as the
    # difference of two distances.
    below, union = (pixels - hits).to(p.dtype), (pixels + rank - hits).to(p.dtype)
    slope = torch.where(is_foreground, 1.0, below / (union - 1).clamp_min(1)) / union
    present = pixels.squeeze(1) > 0
    used = present.unsqueeze(1) & valid[order]
    per_class = torch.where(used, errors.gather(1, order) * slope, 0.0).sum(1)
    return per_class.sum() / present.sum().clamp_min(1) + 0 * p.sum()


PLAIN = Engine(_class_sums, _resized_class_sums, _pixel_nll, _soft_counts, _seesaw, _lovasz_softmax)
