"""Seesaw cross-entropy: a rare class is punished less for the pixels of a frequent one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import kernels
from .blocks import Pixels, as_rows, from_rows, in_huge_pages, map_row_blocks, pixel_rows
from .checks import check_pixel_weight, check_shapes, compute_dtype, valid_pixels
from .class_nll import pixel_nll


def seesaw_nll_sum(
    logits: Tensor,
    target: Tensor,
    pixels: Tensor,
    p: float = 0.8,
    q: float = 2.0,
    *,
    ignore_index: int | None = 255,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of the seesaw logits, summed over the valid pixels.

        S = sum_n u_n (-log softmax(z'_n)[y_n])
        z'_j = z_j - z_y + log M_yj + log C_yj,    M_yj = min(1, N_j / N_y)^p
                                                   C_yj = max(1, softmax(z)_j / softmax(z)_y)^q

    for a pixel of class y with the weight u_n (1 if none is given). Mitigation M spares a class
    rarer than y, in proportion, and a class not yet seen, N_j = 0, entirely. Compensation C
    restores the punishment where the pixel is taken for j. Both are constants for the gradient.

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        pixels: N_c, (C,), seen so far.
        p: >= 0, of the mitigation.
        q: >= 0, of the compensation.
        ignore_index: Id of the pixels that take no part; None for none.
        pixel_weight: (N, ...), a constant factor per pixel, or None.

    Returns:
        Scalar, float32 (float64 for float64 logits), differentiable with respect to logits.

    Raises:
        ValueError: As :func:`class_nll_sums`; pixels of another number of classes.

    Example:
        >>> import torch
        >>> z = torch.tensor([[0.0, 1.0]])
        >>> total = seesaw_nll_sum(z, torch.tensor([0]), torch.tensor([2, 1]), p=1.0)
        >>> torch.expm1(total).log()  # z'_1 = 1 + log(1/2) + 2
        tensor(2.3069)

    Source: Wang et al. 2021, "Seesaw Loss for Long-Tailed Instance Segmentation", per pixel.
    """
    check_shapes(logits, target)
    pixel_weight = check_pixel_weight(pixel_weight, logits, target)
    if pixels.shape != logits.shape[1:2] or pixels.device != logits.device:
        raise ValueError(
            f'pixels must hold a count for each of the {logits.shape[1]} classes of the logits, on '
            f'{logits.device}; got {tuple(pixels.shape)} on {pixels.device}'
        )
    target = target.long().contiguous()
    mitigation = _log_mitigation(pixels, p).to(compute_dtype(logits))
    function = _SeesawNllSum.apply if kernels.usable(logits) else _seesaw_nll_sum
    return function(logits, target, mitigation, q, ignore_index, pixel_weight)


def _log_mitigation(pixels: Tensor, p: float) -> Tensor:
    """log M_yj at [j, y], (C, C) float64; adjacent is what one logit of several pixels needs."""
    own, pixels = pixels.double(), pixels.double().unsqueeze(1)
    ratio = (pixels / own.clamp_min(1.0)).clamp_max(1.0)
    mitigation = p * ratio.log() if p else torch.zeros_like(ratio)
    # N_y <= N_j, both 0 included: no mitigation.
    return torch.where(own <= pixels, 0.0, mitigation)


def _seesaw_nll_sum(
    logits: Tensor,
    target: Tensor,
    mitigation: Tensor,
    q: float,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
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
    nll = pixel_nll(compensated - counted.amax(dim=1, keepdim=True) + added, target, valid)
    return (nll if pixel_weight is None else nll * pixel_weight).sum()


class _SeesawNllSum(torch.autograd.Function):
    """The same by the kernel: what it saves is the logits alone."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        mitigation: Tensor,
        q: float,
        ignore_index: int | None,
        pixel_weight: Tensor | None,
    ) -> Tensor:
        if pixel_weight is not None:
            pixel_weight = pixel_weight.contiguous()
        ctx.save_for_backward(logits, target, mitigation, pixel_weight)
        ctx.options = q, ignore_index
        labels, weight = pixel_rows(target), pixel_rows(pixel_weight)

        def score(at: Pixels, x: Tensor, _: Tensor) -> tuple[Tensor, int]:
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            factors = None if weight is None else weight[at], mitigation, q
            arguments = x, labels[at], ignore_index, *factors, total
            return total, kernels.run('seesaw_forward', *arguments)

        scores = map_row_blocks(score, as_rows(logits))
        if any(unknown for _, unknown in scores):
            valid_pixels(target, logits.shape[1], ignore_index)  # says which
        start = torch.zeros((), dtype=torch.float64, device=logits.device)
        return sum((total for total, _ in scores), start).float()

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, mitigation, pixel_weight = ctx.saved_tensors
        q, ignore_index = ctx.options
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            total = _seesaw_nll_sum(logits, target, mitigation, q, ignore_index, pixel_weight)
            grad = torch.autograd.grad(total, logits, grad_sum, create_graph=True)[0]
            return grad, None, None, None, None, None
        rows, labels, weight = as_rows(logits), pixel_rows(target), pixel_rows(pixel_weight)
        grad = in_huge_pages(torch.empty_like(rows))

        def differentiate(at: Pixels, x: Tensor, scratch: Tensor) -> None:
            factors = None if weight is None else weight[at], mitigation, q, grad_sum
            arguments = x, labels[at], ignore_index, *factors
            kernels.run_into(grad[at[0], :, at[1]], scratch, 'seesaw_backward', *arguments)

        map_row_blocks(differentiate, rows)
        return from_rows(grad, logits), None, None, None, None, None
