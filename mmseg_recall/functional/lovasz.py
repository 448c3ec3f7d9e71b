"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import (
    as_rows,
    from_rows,
    full_precision,
    in_huge_pages,
    map_on_threads,
    map_row_blocks,
    pixel_rows,
    refuse_double_backward,
)
from .checks import check_shapes, compute_dtype, valid_pixels


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


class _LovaszSoftmax(torch.autograd.Function):
    """Class by class on CPU, where sorts that fit the cache beat one long sort severalfold."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        labels = torch.where(valid, target, num_classes)
        errors = _class_errors(logits, labels)
        total = (errors.sum() * 0).abs()  # NaN if a logit is
        labels = labels.flatten()
        present = torch.bincount(labels, minlength=num_classes + 1)[:-1].nonzero()
        present, labels = present.flatten().tolist(), labels.int()

        # The gradient with respect to p takes the place of the errors, class by class.
        def score(c: int) -> Tensor:
            index, ranked, slope = _ranked_slopes(errors[c], labels == c)
            errors[c].zero_().scatter_(0, index, slope / len(present))
            return torch.dot(ranked, slope.abs()) / len(present)

        with full_precision():  # of the dot product
            parts = map_on_threads(lambda: score, present, logits.device)
        for part in parts:
            total += part
        for c in set(range(num_classes)).difference(present):
            errors[c].zero_()
        if ctx.needs_input_grad[0]:
            # Not rounded to float16 yet, which a loss scale could not undo.
            ctx.save_for_backward(_through_softmax(logits, errors))
            ctx.dtype = logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        refuse_double_backward()
        (grad,) = ctx.saved_tensors
        return (grad * grad_output).to(ctx.dtype), None, None


def _class_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, pixels): 1 - p of the class where it is the label, p elsewhere, -1 where it is C."""
    rows, labels = as_rows(logits), pixel_rows(labels)
    num_images, num_classes, num_pixels = rows.shape
    shape = num_classes, num_images, num_pixels
    errors = in_huge_pages(logits.new_empty(shape, dtype=compute_dtype(logits)))

    def score(at: tuple[int, slice], x: Tensor, p: Tensor) -> None:
        torch.softmax(x, 0, out=p)
        index = labels[at].clamp(max=num_classes - 1).unsqueeze(0)
        # The sum of the others has the digits of 1 - p that a subtraction loses near p = 1. It does
        # not have the NaN of p where there are no others.
        nothing = 0 * p.gather(0, index)
        p.scatter_(0, index, 0.0).scatter_(0, index, p.sum(0, keepdim=True) + nothing)
        errors[:, at[0], at[1]] = p.masked_fill_(labels[at] == num_classes, -1.0)

    map_row_blocks(score, rows)
    return errors.flatten(1)


def _through_softmax(logits: Tensor, grad_p: Tensor) -> Tensor:
    """The gradient of the logits, in the computing type, from that of p, (C, pixels)."""
    rows = as_rows(logits)
    grad_p = grad_p.view(rows.shape[1], rows.shape[0], rows.shape[2])
    grad = in_huge_pages(torch.empty_like(rows, dtype=compute_dtype(logits)))

    def differentiate(at: tuple[int, slice], x: Tensor, p: Tensor) -> None:
        torch.softmax(x, 0, out=p)
        block = grad_p[:, at[0], at[1]]
        torch.mul(p, block - (p * block).sum(0), out=grad[at[0], :, at[1]])

    map_row_blocks(differentiate, rows)
    return from_rows(grad, logits)


_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}


def _ranked_slopes(errors: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in ascending order of error: their index, their error, and dL/dp.

    Past the last foreground pixel, in descending order, the Jaccard distance stays 1: what is
    ranked below it has no part in the value, nor a gradient, and is left out.
    """
    smallest = torch.where(foreground, errors, float('inf')).amin()
    kept = (errors >= smallest).nonzero().flatten()
    # Non-negative floats order as their bit patterns do, and torch sorts long integer vectors by
    # radix, many times faster than floats.
    ranked, order = errors.index_select(0, kept).view(_INTEGER[errors.dtype]).sort()
    ranked, index = ranked.view(errors.dtype), kept.index_select(0, order)
    is_foreground = foreground.index_select(0, index)
    # Of the pixels ranked at or below this one, `below` are foreground; `union` is the union of
    # prediction and truth when all pixels above this one are counted as wrong.
    below = is_foreground.cumsum(0, dtype=torch.int32)
    above = torch.arange(len(index) - 1, -1, -1, dtype=torch.int32, device=errors.device)
    union = above.add_(below).to(errors.dtype)
    slope = below.to(errors.dtype).div_(union + 1).masked_fill_(is_foreground, -1.0).div_(union)
    return index, ranked, slope
