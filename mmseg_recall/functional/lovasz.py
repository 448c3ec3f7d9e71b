"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_shapes, compute_dtype, valid_pixels
from .fused import refuse_double_backward


def lovasz_softmax(logits: Tensor, target: Tensor, *, ignore_index: int | None = 255) -> Tensor:
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

        L = mean_c sum_k e_(k) (J_k - J_{k-1})

    with e_n = 1 - p_n^c where y_n = c and p_n^c elsewhere, e_(1) >= e_(2) >= ... those errors in
    order, and J_k the Jaccard distance of class c when the k pixels of largest error are wrong.

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        Scalar, float32 (float64 for float64 logits), in [0, 1]; 0, connected to the graph, when
        no pixel is valid. NaN logits give NaN.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> lovasz_softmax(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    Source: Berman et al. 2018, Eq. 9 to 11.
    """
    check_shapes(logits, target)
    target = target.long()
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    if logits.device.type == 'cpu' and not torch.compiler.is_compiling():
        return _LovaszSoftmax.apply(logits, target, valid)
    return _all_classes_at_once(logits, target, valid)


def _all_classes_at_once(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One sort of all classes, static shapes, no synchronisation: for CUDA and torch.compile."""
    num_classes = logits.shape[1]
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1).transpose(0, 1).flatten(1)
    valid = valid.flatten()
    classes = torch.arange(num_classes, device=logits.device).unsqueeze(1)
    foreground = valid & (target.flatten() == classes)
    errors = torch.where(foreground, 1 - p, p)
    # Invalid pixels sort behind all others: no slope depends on what comes after it.
    order = torch.where(valid, errors.detach(), -1.0).argsort(dim=1, descending=True)
    ranked_foreground = foreground.gather(1, order).to(p.dtype)
    hits = ranked_foreground.cumsum(1)
    pixels = hits[:, -1:]
    rank = torch.arange(1, p.shape[1] + 1, device=p.device)
    jaccard = 1 - (pixels - hits) / (pixels + rank - hits)
    slope = jaccard.diff(dim=1, prepend=jaccard.new_zeros(num_classes, 1))
    present = pixels.squeeze(1) > 0
    used = present.unsqueeze(1) & valid[order]
    per_class = torch.where(used, errors.gather(1, order) * slope, 0.0).sum(1)
    return per_class.sum() / present.sum().clamp_min(1) + 0 * p.sum()


class _LovaszSoftmax(torch.autograd.Function):
    """Class by class on CPU, where sorts that fit the cache beat one long sort severalfold."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        x = logits.detach().to(compute_dtype(logits))
        log_p = F.log_softmax(x, dim=1)
        labels = torch.where(valid, target, 0)
        # -expm1(log p) keeps the digits of 1 - p near p = 1.
        errors_true = -torch.expm1(log_p.gather(1, labels.unsqueeze(1)).squeeze(1)).flatten()
        p = log_p.exp_().flatten(2) if x.dim() > 2 else log_p.exp_().unsqueeze(2)
        labels = torch.where(valid, target, -1).flatten()
        pixels = torch.bincount(labels + 1, minlength=x.shape[1] + 1)[1:]
        present = pixels.nonzero().flatten().tolist()
        needs_grad = ctx.needs_input_grad[0]
        grad_p = torch.zeros_like(p) if needs_grad else None
        total = p.sum() * 0  # NaN if a logit is
        selected = None if bool(valid.all()) else valid.flatten().nonzero().flatten()
        for c in present:
            foreground = labels == c
            errors = torch.where(foreground, errors_true, p[:, c].reshape(-1))
            index = selected
            if index is not None:
                errors, foreground = errors[index], foreground[index]
            # Past the last foreground pixel the Jaccard distance stays 1: those pixels have no
            # part in the value, nor a gradient.
            ends = errors >= torch.where(foreground, errors, 1.0).amin()
            if int(ends.count_nonzero()) < 0.75 * len(errors):
                kept = ends.nonzero().flatten()
                errors, foreground = errors[kept], foreground[kept]
                index = kept if index is None else index[kept]
            ranked, slope, order = _ranked_slopes(errors, foreground)
            total += torch.dot(ranked, slope.abs()) / len(present)
            if needs_grad:
                where = order if index is None else index[order]
                row = errors.new_zeros(len(labels)).scatter_(0, where, slope / len(present))
                grad_p[:, c] = row.view(p.shape[0], -1)
        if needs_grad:
            p = F.softmax(x, dim=1).view_as(p)
            grad = p * (grad_p - (grad_p * p).sum(1, keepdim=True))
            ctx.save_for_backward(grad.view_as(x).to(logits.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        refuse_double_backward()
        (grad,) = ctx.saved_tensors
        return grad * grad_output, None, None


_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}


def _ranked_slopes(errors: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Errors in ascending order, dL/dp of each, and the index that orders them.

    Non-negative floats order as their bit patterns do, and torch sorts long integer vectors by
    radix, many times faster than floats; the lowest bit carries the foreground flag through.
    """
    keys = errors.view(_INTEGER[errors.dtype]).mul(2).add_(foreground)
    keys, order = keys.sort()
    is_foreground = keys.bitwise_and(1)
    # Of the pixels ranked at or below this one: `below` are foreground, and `union` is the union
    # of prediction and truth before this pixel, in descending order, is counted as wrong.
    below = is_foreground.cumsum(0, dtype=keys.dtype)
    union = below + torch.arange(len(keys) - 1, -1, -1, dtype=keys.dtype)
    below, union = below.to(errors.dtype), union.to(errors.dtype)
    slope = torch.where(is_foreground.bool(), -1.0, below / (union + 1)) / union
    return keys.bitwise_right_shift_(1).view(errors.dtype), slope, order
