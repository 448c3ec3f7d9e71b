"""On GPUs without Triton, Apple's too: torch operations that read the logits as seldom as they can.

What is saved is the softmax, as cross-entropy does, and nothing else of the size of the logits is
made but their gradient. Sums over pixels go to a table with a column for each column of the image,
so that few additions meet at one address.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import compute_dtype, valid_pixels, widest
from .operation import Operation, differentiated
from .plain import PLAIN, adjustment_of


def usable(logits: Tensor) -> bool:
    """Whether these are so many pixels that a table of labels and predictions is small beside."""
    of_gpu = logits.device.type in ('cuda', 'mps')
    return of_gpu and logits.dim() > 2 and 0 < logits.shape[1] ** 3 <= logits.numel()


def _labels(target: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """(label, 0 where the pixel takes no part, with an axis for the classes; valid)."""
    valid = valid_pixels(target, num_classes, ignore_index)
    return torch.where(valid, target, 0).unsqueeze(1), valid


def _sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum ``values``, one a pixel or one for all, by ``index`` in [0, size): (size,)."""
    width = index.shape[-1]
    index = index.reshape(-1, width if size * width <= index.numel() else 1)
    table = values.new_zeros(size, index.shape[1])
    table.scatter_add_(
        0, index, values.reshape(index.shape) if values.dim() else values.expand_as(index)
    )
    return table.sum(1, dtype=_of_sums(values))


def _of_sums(values: Tensor) -> torch.dtype:
    """What they are added up in, where they have not been added up yet."""
    if not values.is_floating_point():
        return torch.int64
    return widest(values.new_empty(0)).dtype


def _score(logits: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(-log p of the label, or 0; the largest class; the softmax), the first two with an axis."""
    top, prediction = logits.max(dim=1, keepdim=True)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1)
    # Of the true class itself p may be 0; of the largest it is at least 1 / C.
    nll = top.to(p.dtype) - logits.gather(1, labels) - p.gather(1, prediction).log_()
    return nll.masked_fill_(~valid.unsqueeze(1), 0.0), prediction, p


def _of_score(p: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
    """factor * (softmax - one-hot)."""
    return (p * factor).scatter_add_(1, labels, -factor)


def _class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, pixel_weight: Tensor | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    num_classes = logits.shape[1]
    labels, valid = _labels(target, num_classes, ignore_index)
    nll, prediction, p = _score(logits, labels, valid)
    bins = torch.where(valid, labels.squeeze(1), num_classes)
    factor = None
    if pixel_weight is not None:
        factor = torch.where(valid, pixel_weight, 0.0).unsqueeze(1)
        nll = nll * factor
    sums = _sums(nll, bins, num_classes + 1)[:-1].to(nll.dtype)
    pairs = bins.mul_(num_classes).add_(prediction.squeeze(1))
    one = torch.ones((), dtype=torch.int32, device=logits.device)
    pairs = _sums(one, pairs, num_classes * (num_classes + 1)).view(num_classes + 1, num_classes)
    counts = pairs[:-1].sum(1), pairs[:-1].diagonal().clone(), pairs[:-1].sum(0)
    return (sums, *counts), (p, labels, valid, factor)


def _differentiate_class_sums(
    grads: tuple[Tensor], saved: tuple[Tensor, Tensor, Tensor, Tensor | None], *_: object
) -> Tensor:
    (grad,), (p, labels, valid, factor) = grads, saved
    factors = torch.where(valid.unsqueeze(1), grad[labels], 0.0)
    return _of_score(p, labels, factors if factor is None else factors * factor)


def _resized_class_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, align_corners: bool
) -> tuple[Tensor, ...]:
    full = F.interpolate(
        logits.to(compute_dtype(logits)),
        target.shape[1:],
        mode='bilinear',
        align_corners=align_corners,
    )
    return CUDA_TORCH.class_sums(full, target, ignore_index, None)


def _pixel_nll(
    logits: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    labels, valid = _labels(target, logits.shape[1], ignore_index)
    nll, _, p = _score(logits, labels, valid)
    return (nll.squeeze(1), valid), (p, labels, valid)


def _differentiate_pixel_nll(
    grads: tuple[Tensor], saved: tuple[Tensor, Tensor, Tensor], *_: object
) -> Tensor:
    (grad,), (p, labels, valid) = grads, saved
    return _of_score(p, labels, torch.where(valid, grad, 0.0).unsqueeze(1))


def _soft_counts(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    num_classes, num_images = logits.shape[1], len(logits) if per_image else 1
    labels, valid = _labels(target, num_classes, ignore_index)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1)
    p = torch.where(valid.unsqueeze(1), p, 0.0)
    p_true = p.gather(1, labels)
    mass = p.flatten(2).sum(2)
    bins = labels
    if per_image:
        image = torch.arange(num_images, device=labels.device)
        bins = labels + num_classes * image.view(-1, *[1] * (labels.dim() - 1))
    else:
        mass = mass.sum(0, keepdim=True)
    size = num_images * num_classes
    bins = torch.where(valid, bins.squeeze(1), size)
    one = torch.ones((), dtype=torch.int32, device=logits.device)
    intersection = _sums(p_true, bins, size + 1)[:-1].to(p.dtype).view_as(mass)
    pixels = _sums(one, bins, size + 1)[:-1].view_as(mass)
    return (intersection, mass, pixels), (p, p_true, labels)


def _differentiate_soft_counts(
    grads: tuple[Tensor, Tensor], saved: tuple[Tensor, Tensor, Tensor], *_: object
) -> Tensor:
    """p_c (m_c - sum_k p_k m_k - i_y p_y) + [c = y] i_y p_y."""
    (of_intersection, of_mass), (p, p_true, labels) = grads, saved
    spread = [1] * (labels.dim() - 2)
    grad = p * of_mass.view(*of_mass.shape, *spread)
    factors = of_intersection.expand(len(p), -1).gather(1, labels.flatten(1)).view_as(labels)
    factors = factors * p_true
    grad.addcmul_(p, grad.sum(1, keepdim=True).add_(factors), value=-1)
    return grad.scatter_add_(1, labels, factors)


def _adjusted_nll(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    adjustment: Tensor,
    q: float,
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    labels, valid = _labels(target, logits.shape[1], ignore_index)
    x = logits.to(compute_dtype(logits))
    # Relative to the largest: large logits have no digits left for the adjustment.
    x = x - x.amax(dim=1, keepdim=True)
    if q:
        x.add_(torch.maximum(x, x.gather(1, labels)), alpha=q)
    x.add_(adjustment_of(labels.squeeze(1), adjustment))
    nll, _, p = _score(x, labels, valid)
    factor = valid.unsqueeze(1)
    if pixel_weight is not None:
        factor = torch.where(valid, pixel_weight, 0.0).unsqueeze(1)
        nll = nll * factor
    total = nll.sum(dtype=_of_sums(nll)).to(nll.dtype)
    return (total, valid.sum()), (p, labels, factor)


def _differentiate_adjusted_nll(
    grads: tuple[Tensor], saved: tuple[Tensor, Tensor, Tensor], *_: object
) -> Tensor:
    (grad,), (p, labels, factor) = grads, saved
    return _of_score(p, labels, grad * factor)


CUDA_TORCH = PLAIN._replace(
    class_sums=differentiated(Operation(_class_sums, _differentiate_class_sums, PLAIN.class_sums)),
    resized_class_sums=_resized_class_sums,
    pixel_nll=differentiated(Operation(_pixel_nll, _differentiate_pixel_nll, PLAIN.pixel_nll)),
    soft_counts=differentiated(
        Operation(_soft_counts, _differentiate_soft_counts, PLAIN.soft_counts, 2)
    ),
    adjusted_nll=differentiated(
        Operation(_adjusted_nll, _differentiate_adjusted_nll, PLAIN.adjusted_nll)
    ),
)
