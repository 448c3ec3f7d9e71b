"""Soft counts of the classes, their intersection over union (soft Jaccard) and Tversky index."""

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
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft true positives, mass and pixels of each class over the valid pixels of the batch.

        I_c = sum_{n: y_n = c} p_n^c,    M_c = sum_n p_n^c,    N_c = #{n : y_n = c}

    From them follow the false positives M - I, the false negatives N - I and the union M + N - I.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        (intersection, mass, pixels), each (C,); the first two differentiable, pixels int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Source: Rahman & Wang 2016; soft counts over valid pixels only.
    """
    check_shapes(logits, target)
    target = target.long()
    if kernels.usable(logits):
        return _SoftSums.apply(logits, target.contiguous(), ignore_index)
    return _soft_sums(logits, target, ignore_index)


def _soft_sums(
    logits: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(intersection, mass, pixels), the mass of a class being the sum of its probabilities."""
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1)
    p_true = p.gather(1, torch.where(valid, target, 0).unsqueeze(1)).squeeze(1)
    intersection = sum_per_class(p_true, target, valid, num_classes)
    pixels = count_labels(torch.where(valid, target, num_classes), num_classes + 1)[:-1]
    mass = torch.where(valid.unsqueeze(1), p, 0.0).transpose(0, 1).flatten(1).sum(1)
    return intersection, mass, pixels


class _SoftSums(torch.autograd.Function):
    """The same by the kernel: what it saves is the logits alone."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        labels, num_classes = pixel_rows(target), logits.shape[1]

        def score(at: Pixels, x: Tensor, _: Tensor) -> tuple[Tensor, Tensor, int]:
            sums = torch.zeros(2, num_classes, dtype=torch.float64)
            pixels = torch.zeros(num_classes, dtype=torch.int64)
            outputs = sums[0], sums[1], pixels
            unknown = kernels.run('soft_iou_forward', x, labels[at], ignore_index, *outputs)
            return sums, pixels, unknown

        total = torch.zeros(2, num_classes, dtype=torch.float64)
        pixels = torch.zeros(num_classes, dtype=torch.int64)
        for block_sums, block_pixels, unknown in map_row_blocks(score, as_rows(logits)):
            if unknown:
                valid_pixels(target, num_classes, ignore_index)  # says which
            total += block_sums
            pixels += block_pixels
        ctx.save_for_backward(logits, target)
        ctx.ignore_index = ignore_index
        ctx.mark_non_differentiable(pixels)
        intersection, mass = total.to(compute_dtype(logits)).unbind()
        return intersection.clone(), mass.clone(), pixels

    @staticmethod
    def backward(
        ctx: Any, grad_intersection: Tensor, grad_mass: Tensor, _: Any
    ) -> tuple[Tensor, None, None]:
        logits, target = ctx.saved_tensors
        grads = grad_intersection.contiguous(), grad_mass.contiguous()
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            sums = _soft_sums(logits, target, ctx.ignore_index)[:2]
            return torch.autograd.grad(sums, logits, grads, create_graph=True)[0], None, None
        rows, labels = as_rows(logits), pixel_rows(target)
        grad = in_huge_pages(torch.empty_like(rows))

        def differentiate(at: Pixels, x: Tensor, scratch: Tensor) -> None:
            out = grad[at[0], :, at[1]]
            arguments = x, labels[at], ctx.ignore_index, *grads
            kernels.run_into(out, scratch, 'soft_iou_backward', *arguments)

        map_row_blocks(differentiate, rows)
        return from_rows(grad, logits), None, None


def soft_iou_loss(intersection: Tensor, union: Tensor, pixels: Tensor) -> Tensor:
    """1 - mean of I_c / U_c over the classes present; 0 when there are none.

    Example:
        >>> import torch
        >>> soft_iou_loss(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]), torch.tensor([1, 0]))
        tensor(0.5000)
    """
    present = pixels > 0
    iou = torch.where(present, intersection / torch.where(present, union, 1.0), 0.0)
    return (present.sum() - iou.sum()) / present.sum().clamp_min(1)


def tversky_loss(
    intersection: Tensor,
    mass: Tensor,
    pixels: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
) -> Tensor:
    """Mean of (1 - T_c)^(1 / gamma) over the classes present; 0 when there are none.

        T_c = I_c / (I_c + alpha FP_c + beta FN_c)

    Args:
        intersection: I_c, (C,), from :func:`soft_sums`, as the next two.
        mass: M_c, (C,); FP = M - I.
        pixels: N_c, (C,); FN = N - I.
        alpha: Weight of the false positives, >= 0.
        beta: Weight of the false negatives, > 0.
        gamma: > 0; above 1 it is the focal Tversky loss.

    Example:
        >>> import torch
        >>> tversky_loss(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([2]), beta=0.5)
        tensor(0.3333)

    Source: Salehi et al. 2017; Abraham & Khan 2019 for gamma.
    """
    present = pixels > 0
    # 1 - T without the cancellation.
    misses = alpha * (mass - intersection) + beta * (pixels - intersection)
    distance = misses / torch.where(present, intersection + misses, 1.0)
    if gamma != 1:
        # The slope of a root at 0 is infinite.
        distance = distance.clamp_min(torch.finfo(distance.dtype).tiny) ** (1 / gamma)
    return torch.where(present, distance, 0.0).sum() / present.sum().clamp_min(1)
