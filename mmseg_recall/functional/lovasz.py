"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .checks import check_resizable, check_shapes, valid_pixels, widest
from .counts import ClassCounts
from .engines import pick_engine
from .engines.plain import class_chunks, resized, softmax_of_valid, with_gradient
from .ranks import num_ranks, sum_over_ranks

FEW = 2**14
"""Pixels of all ranks that are sorted: so few cost little, and bins would miss their order."""


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    exact: bool = False,
    sync: bool = True,
    impl: str = 'auto',
) -> Tensor:
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

        L = mean_c sum_k e_(k) (J_k - J_{k-1})

    with e_n = 1 - p_n^c where y_n = c and p_n^c elsewhere, e_(1) >= e_(2) >= ... those errors in
    order, and J_k the Jaccard distance of class c when the k pixels of largest error are wrong.

    The errors are counted in bins instead of sorted, where there are more than 16,384 pixels: the
    value is within 1e-4 of itself, the gradient within 1e-3 of its norm, but for pixels that all
    but tie (docs/losses.md).

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        exact: Sort however many pixels there are; with ``sync`` every rank sorts those of all.
        sync: The batch is that of all W ranks: each returns the loss of the whole batch, with W
            times its share of the gradient.
        impl: Which engine: see :func:`mmseg_recall.functional.engines.pick_engine`.

    Returns:
        Scalar, float32 (float64 for float64 logits), in [0, 1]; 0, connected to the graph, when
        no pixel is valid. NaN logits give NaN. Differentiable any number of times, the slopes
        being constants.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> lovasz_softmax(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    Source: Berman et al. 2018, Eq. 9 to 11.
    """
    check_shapes(logits, target)
    engine, target = pick_engine(logits, impl), target.long()
    first, num_pixels = _place(target, sync)
    if exact or num_pixels <= FEW:
        return _by_sorting(logits, target, ignore_index, sync, first, num_pixels)
    return engine.lovasz_softmax(logits, target, ignore_index, sync)


def resized_class_nll_sums_and_lovasz(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    ignore_index: int | None = 255,
    sync: bool = True,
) -> tuple[Tensor, Tensor, ClassCounts]:
    """:func:`resized_class_nll_sums` and :func:`lovasz_softmax` of the same resized logits.

    On CPU the full-resolution logits are never made, where there are enough pixels to be counted.

    Args:
        logits: (N, C, h, w), any floating type; float16 and bfloat16 compute in float32.
        target: (N, H, W), integer class ids.
        align_corners: As in F.interpolate.
        ignore_index: Id of the pixels that take no part; None for none.
        sync: As of :func:`lovasz_softmax`.

    Returns:
        (sums, Lovasz-Softmax, counts), as these functions.

    Raises:
        ValueError: As :func:`resized_class_nll_sums`.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 2, 1, 1), torch.tensor([[[0, 1]]])
        >>> resized_class_nll_sums_and_lovasz(logits, target)[1]
        tensor(0.5000)
    """
    check_resizable(logits, target)
    engine, labels = pick_engine(logits, 'fused'), target.long()
    first, num_pixels = _place(labels, sync)
    if num_pixels > FEW and logits.shape[2:] != target.shape[1:]:
        sums, lovasz, *counts = engine.resized_class_sums_and_lovasz(
            logits, labels, ignore_index, align_corners, sync
        )
    else:
        full = resized(logits, target, align_corners)
        sums, *counts = engine.class_sums(full, labels, ignore_index, None)
        if num_pixels > FEW:
            lovasz = engine.lovasz_softmax(full, labels, ignore_index, sync)
        else:
            lovasz = _by_sorting(full, labels, ignore_index, sync, first, num_pixels)
    return sums, lovasz, ClassCounts(*counts)


def _place(target: Tensor, sync: bool) -> tuple[int, int]:
    """(pixels of the ranks before this one, pixels of all)."""
    if num_ranks(sync) == 1:
        return 0, target.numel()
    mine = torch.arange(num_ranks(), device=target.device) == torch.distributed.get_rank()
    sizes = sum_over_ranks(mine * target.numel())[0].tolist()
    return sum(sizes[: torch.distributed.get_rank()]), sum(sizes)


def _by_sorting(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    sync: bool,
    first: int,
    num_pixels: int,
) -> Tensor:
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    p = softmax_of_valid(logits, valid)
    with torch.no_grad():
        labels = torch.where(valid, target, num_classes).flatten()
        mine = slice(first, first + len(labels))
        errors = _of_all_ranks(_errors(p, labels), mine, num_pixels, sync)
        value, slopes = _rank(errors, _of_all_ranks(labels, mine, num_pixels, sync))
        grad_p = slopes[:, mine].view(num_classes, *p.shape[::2]).transpose(0, 1)
    return with_gradient(value, p, grad_p.mul_(num_ranks(sync)))


def _of_all_ranks(values: Tensor, mine: slice, num_pixels: int, sync: bool) -> Tensor:
    """The last axis of every rank, one after the other."""
    if num_ranks(sync) == 1:
        return values
    everywhere = values.new_zeros(*values.shape[:-1], num_pixels)
    everywhere[..., mine] = values
    return sum_over_ranks(everywhere, sync)[0]


def _errors(p: Tensor, labels: Tensor) -> Tensor:
    """(C, pixels): 1 - p of the class that is the label, p of the others; -1 without a label.

    The sum of the others has the digits of 1 - p that a subtraction loses near p = 1.
    """
    errors = p.transpose(0, 1).clone(memory_format=torch.contiguous_format).flatten(1)
    index = labels.clamp_max(len(errors) - 1).unsqueeze(0)
    errors.scatter_(0, index, 0.0).scatter_(0, index, errors.sum(0, keepdim=True))
    return errors.masked_fill_(labels == len(errors), -1.0)


def _rank(errors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and dL/dp, which takes the place of the errors."""
    total = present = torch.zeros((), device=errors.device)
    rank = torch.arange(1, len(labels) + 1, device=errors.device)
    number = torch.arange(len(errors), device=errors.device).unsqueeze(1)
    # Floats order as their bits do, and integers are sorted faster; -1 is the smallest.
    integer = torch.int32 if errors.dtype == torch.float32 else torch.int64
    # Past the last pixel of the class the distance stays 1: what is ranked there has no part in the
    # value, nor a gradient. On a GPU, leaving it out would wait for the device.
    prunes = errors.device.type == 'cpu' and len(labels) > 0 and not torch.compiler.is_compiling()
    for classes in range(len(errors)) if prunes else class_chunks(len(errors)):
        scored, is_label = errors[classes], labels == number[classes]
        kept: Any = ...
        if prunes:
            last = torch.where(is_label, scored, math.inf).amin()
            kept = (~(scored < last)).nonzero().squeeze(1)  # NaN with them
            scored, is_label = scored[kept], is_label[kept]
            errors[classes] = 0
        bits, order = scored.view(integer).sort(dim=-1, descending=not prunes)
        if prunes:  # long vectors are sorted fastest in ascending order
            bits, order = bits.flip(0), order.flip(0)
        ranked = bits.view(errors.dtype)
        is_label = is_label.gather(-1, order)
        pixels = is_label.sum(-1, keepdim=True)
        left = (pixels - is_label.cumsum(-1, dtype=torch.int32)).to(ranked.dtype)
        union = left + rank[: ranked.shape[-1]]
        # Each step of the Jaccard distance by itself: in a large image it has no digits left as
        # the difference of two distances.
        slope = left.div_((union - 1).clamp_min_(1)).masked_fill_(is_label, -1.0).div_(union)
        slope.masked_fill_((ranked < 0) | (pixels == 0), 0.0)
        total = total + widest((ranked * slope.abs()).sum())
        present = present + (pixels > 0).sum()
        errors[classes][kept] = ranked.scatter_(-1, order, slope)
    present = present.clamp_min(1)
    return total / present, errors.div_(present)
