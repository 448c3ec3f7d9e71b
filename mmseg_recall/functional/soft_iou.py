"""Soft intersection over union (soft Jaccard)."""

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


def soft_intersection_union(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft intersection and union of each class over the valid pixels of the batch.

        I_c = sum_{n: y_n = c} p_n^c,    U_c = sum_n p_n^c + N_c - I_c

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        (intersection, union, pixels), each (C,); the first two differentiable, pixels int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Source: Rahman & Wang 2016; soft counts over valid pixels only.
    """
    check_shapes(logits, target)
    target = target.long()
    if kernels.usable(logits):
        sums = _SoftSums.apply(logits, target.contiguous(), ignore_index)
    else:
        sums = _soft_sums(logits, target, ignore_index)
    intersection, mass, pixels = sums
    return intersection, mass + pixels - intersection, pixels


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
