"""Soft counts of the classes, and the Tversky index (soft Jaccard, Dice) that they define."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .blocks import Pixels, as_rows, from_rows, in_huge_pages, map_row_blocks, pixel_rows
from .checks import check_shapes, compute_dtype, valid_pixels
from .class_nll import sum_per_class
from .counts import count_labels


def soft_sums(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255, per_image: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft true positives, mass and pixels of each class over the valid pixels.

        I_c = sum_{n: y_n = c} p_n^c,    M_c = sum_n p_n^c,    N_c = #{n : y_n = c}

    From them follow the false positives M - I, the false negatives N - I and the union M + N - I.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        per_image: Sum over the pixels of each image instead of over those of the batch.

    Returns:
        (intersection, mass, pixels), each (C,), or (N, C) with ``per_image``; the first two
        differentiable, pixels int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(2, 2, 3), torch.tensor([[0, 0, 1], [1, 1, 255]])
        >>> soft_sums(logits, target)[0]
        tensor([1.0000, 1.5000])
        >>> soft_sums(logits, target, per_image=True)[0]
        tensor([[1.0000, 0.5000],
                [0.0000, 1.0000]])

    Source: Rahman & Wang 2016; soft counts over valid pixels only.
    """
    check_shapes(logits, target)
    target = target.long()
    if per_image and logits.dim() == 2:
        logits, target = logits.unsqueeze(2), target.unsqueeze(1)
    if kernels.usable(logits):
        sums = _SoftSums.apply(logits, target.contiguous(), ignore_index, per_image)
    else:
        sums = _soft_sums(logits, target, ignore_index, per_image)
    return sums if per_image else tuple(s.squeeze(0) for s in sums)


def _soft_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(intersection, mass, pixels), the mass of a class being the sum of its probabilities."""
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


class _SoftSums(torch.autograd.Function):
    """The same by the kernel: what it saves is the logits alone."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int | None, per_image: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, num_classes = pixel_rows(target), logits.shape[1]

        def score(at: Pixels, x: Tensor, _: Tensor) -> tuple[int, Tensor, Tensor, int]:
            sums = torch.zeros(2, num_classes, dtype=torch.float64, device=x.device)
            pixels = torch.zeros(num_classes, dtype=torch.int64, device=x.device)
            outputs = sums[0], sums[1], pixels
            unknown = kernels.run('soft_iou_forward', x, labels[at], ignore_index, *outputs)
            return at[0] if per_image else 0, sums, pixels, unknown

        num_images = len(logits) if per_image else 1
        total = logits.new_zeros(2, num_images, num_classes, dtype=torch.float64)
        pixels = logits.new_zeros(num_images, num_classes, dtype=torch.int64)
        for image, block_sums, block_pixels, unknown in map_row_blocks(score, as_rows(logits)):
            if unknown:
                valid_pixels(target, num_classes, ignore_index)  # says which
            total[:, image] += block_sums
            pixels[image] += block_pixels
        ctx.save_for_backward(logits, target)
        ctx.ignore_index, ctx.per_image = ignore_index, per_image
        ctx.mark_non_differentiable(pixels)
        intersection, mass = total.to(compute_dtype(logits)).unbind()
        return intersection.clone(), mass.clone(), pixels

    @staticmethod
    def backward(
        ctx: Any, grad_intersection: Tensor, grad_mass: Tensor, _: Any
    ) -> tuple[Tensor, None, None, None]:
        logits, target = ctx.saved_tensors
        grads = grad_intersection.contiguous(), grad_mass.contiguous()
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            sums = _soft_sums(logits, target, ctx.ignore_index, ctx.per_image)[:2]
            grad = torch.autograd.grad(sums, logits, grads, create_graph=True)[0]
            return grad, None, None, None
        rows, labels = as_rows(logits), pixel_rows(target)
        grad = in_huge_pages(torch.empty_like(rows))

        def differentiate(at: Pixels, x: Tensor, scratch: Tensor) -> None:
            out = grad[at[0], :, at[1]]
            image = at[0] if ctx.per_image else 0
            arguments = x, labels[at], ctx.ignore_index, *[g[image] for g in grads]
            kernels.run_into(out, scratch, 'soft_iou_backward', *arguments)

        map_row_blocks(differentiate, rows)
        return from_rows(grad, logits), None, None, None


def tversky_distance(
    intersection: Tensor,
    mass: Tensor,
    pixels: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
) -> Tensor:
    """(1 - T_c)^(1 / gamma) of each class present; 0 of the others.

        T_c = I_c / (I_c + alpha FP_c + beta FN_c)

    Args:
        intersection: I_c, (C,) or (N, C), from :func:`soft_sums`, as the next two.
        mass: M_c; FP = M - I.
        pixels: N_c; FN = N - I.
        alpha: Weight of the false positives, >= 0.
        beta: Weight of the false negatives, > 0; with alpha = beta = 1, T is the intersection over
            union.
        gamma: > 0; above 1 it is the focal Tversky loss.

    Returns:
        Tensor of intersection's shape and type, differentiable.

    Example:
        >>> import torch
        >>> tversky_distance(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([2]), beta=0.5)
        tensor([0.3333])

    Source: Salehi et al. 2017; Abraham & Khan 2019 for gamma.
    """
    present = pixels > 0
    # 1 - T without the cancellation.
    misses = alpha * (mass - intersection) + beta * (pixels - intersection)
    distance = misses / torch.where(present, intersection + misses, 1.0)
    if gamma != 1:
        # The slope of a root at 0 is infinite.
        distance = distance.clamp_min(torch.finfo(distance.dtype).tiny) ** (1 / gamma)
    return torch.where(present, distance, 0.0)
