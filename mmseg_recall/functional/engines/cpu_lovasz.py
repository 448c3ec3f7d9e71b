"""Lovasz-Softmax on CPU: class by class, where sorts that fit the cache beat one long sort."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import compute_dtype, valid_pixels
from .cpu_blocks import At, full_precision, in_huge_pages, map_on_threads, map_row_blocks
from .rows import as_rows, from_rows, pixel_rows


def lovasz_softmax(logits: Tensor, target: Tensor, ignore_index: int | None) -> Tensor:
    """The lovasz_softmax of an :class:`Engine`; once differentiable."""
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    return _LovaszSoftmax.apply(logits, target, valid)


class _LovaszSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        labels = torch.where(valid, target, num_classes)
        errors = _class_errors(logits, labels)
        total = (errors.sum() * 0).abs()  # NaN if a logit is
        labels = labels.flatten()
        pixels = torch.bincount(labels, minlength=num_classes + 1)[:-1]
        present, labels = pixels.nonzero().flatten().tolist(), labels.int()

        # The gradient with respect to p takes the place of the errors, class by class.
        def score(c: int) -> Tensor:
            index, ranked, slope = _ranked_slopes(errors[c], labels == c)
            errors[c].zero_().scatter_(0, index, slope / len(present))
            return torch.dot(ranked, slope.abs()) / len(present)

        with full_precision():  # of the dot product
            parts = map_on_threads(lambda: score, present)
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
        if torch.is_grad_enabled():
            raise RuntimeError(
                'LovaszSoftmaxLoss can be differentiated once only on CPU; '
                "lovasz_softmax(..., impl='plain') any number of times (create_graph=True)"
            )
        (grad,) = ctx.saved_tensors
        return (grad * grad_output).to(ctx.dtype), None, None


def _class_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, pixels): 1 - p of the class where it is the label, p elsewhere, -1 where it is C."""
    rows, labels = as_rows(logits), pixel_rows(labels)
    num_images, num_classes, num_pixels = rows.shape
    shape = num_classes, num_images, num_pixels
    errors = in_huge_pages(logits.new_empty(shape, dtype=compute_dtype(logits)))

    def score(at: At, x: Tensor, p: Tensor) -> None:
        torch.softmax(x, 1, out=p)
        index = labels[at].clamp(max=num_classes - 1).unsqueeze(1)
        # The sum of the others has the digits of 1 - p that a subtraction loses near p = 1. It does
        # not have the NaN of p where there are no others.
        nothing = 0 * p.gather(1, index)
        p.scatter_(1, index, 0.0).scatter_(1, index, p.sum(1, keepdim=True) + nothing)
        p.masked_fill_((labels[at] == num_classes).unsqueeze(1), -1.0)
        errors[:, at[0], at[1]] = p.transpose(0, 1)

    map_row_blocks(score, rows)
    return errors.flatten(1)


def _through_softmax(logits: Tensor, grad_p: Tensor) -> Tensor:
    """The gradient of the logits, in the computing type, from that of p, (C, pixels)."""
    rows = as_rows(logits)
    grad_p = grad_p.view(rows.shape[1], rows.shape[0], rows.shape[2])
    grad = in_huge_pages(torch.empty_like(rows, dtype=compute_dtype(logits)))

    def differentiate(at: At, x: Tensor, p: Tensor) -> None:
        torch.softmax(x, 1, out=p)
        block = grad_p[:, at[0], at[1]].transpose(0, 1)
        torch.mul(p, block - (p * block).sum(1, keepdim=True), out=grad[at[0], :, at[1]])

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
