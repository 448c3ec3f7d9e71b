"""Seesaw cross-entropy: a rare class is punished less for the pixels of a frequent one."""

from __future__ import annotations

from torch import Tensor

from .adjusted import adjusted_nll_sum
from .checks import check_shapes, compute_dtype, widest


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
    rarer than y, in proportion; a class not yet seen counts one pixel, N_j = 1. Compensation C
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
    if pixels.shape != logits.shape[1:2] or pixels.device != logits.device:
        raise ValueError(
            f'pixels must hold a count for each of the {logits.shape[1]} classes of the logits, on '
            f'{logits.device}; got {tuple(pixels.shape)} on {pixels.device}'
        )
    mitigation = _log_mitigation(pixels, p).to(compute_dtype(logits))
    return adjusted_nll_sum(
        logits, target, mitigation, q, ignore_index=ignore_index, pixel_weight=pixel_weight
    )[0]


def _log_mitigation(pixels: Tensor, p: float) -> Tensor:
    """log M_yj at [j, y], (C, C); adjacent is what one logit of several pixels needs."""
    own = widest(pixels).clamp_min(1.0)
    return p * (own.unsqueeze(1) / own).clamp_max(1.0).log()
