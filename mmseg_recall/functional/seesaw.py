"""Seesaw: logits whose softmax punishes a rare class less for the pixels of a frequent one."""

from __future__ import annotations

import torch
from torch import Tensor


def seesaw_logits(
    logits: Tensor, target: Tensor, pixels: Tensor, p: float = 0.8, q: float = 2.0
) -> Tensor:
    """Logits whose cross-entropy is the seesaw loss of ``logits``.

        z'_j = z_j - z_y + log M_yj + log C_yj,    M_yj = min(1, N_j / N_y)^p
                                                   C_yj = max(1, softmax(z)_j / softmax(z)_y)^q

    for a pixel of class y. Mitigation M spares a class rarer than y, in proportion, and a class
    not yet seen, N_j = 0, entirely. Compensation C restores the punishment where the pixel is taken
    for j. Both are constants for the gradient.

    Args:
        logits: (N, C, ...), float32 or float64.
        target: (N, ...), int64 class ids, each in [0, C).
        pixels: N_c, (C,), seen so far.
        p: >= 0, of the mitigation.
        q: >= 0, of the compensation.

    Returns:
        Tensor of logits' shape and type, differentiable, up to a constant for each pixel.

    Example:
        >>> import torch
        >>> z = torch.tensor([[0.0, 1.0]])
        >>> z = seesaw_logits(z, torch.tensor([0]), torch.tensor([2, 1]), p=1.0)
        >>> z[:, 1] - z[:, 0]  # 1 + log(1/2) + 2
        tensor([2.3069])

    Source: Wang et al. 2021, "Seesaw Loss for Long-Tailed Instance Segmentation", per pixel.
    """
    pixels = pixels.double()
    ratio = pixels / pixels.unsqueeze(1).clamp_min(1.0)  # [y, j]
    mitigation = p * ratio.clamp_max(1.0).log() if p else torch.zeros_like(ratio)
    # N_y <= N_j, both 0 included: no mitigation.
    mitigation = torch.where(pixels.unsqueeze(1) <= pixels, 0.0, mitigation).to(logits.dtype)
    # The logarithm of a ratio of probabilities is a difference of logits.
    difference = logits - logits.detach().gather(1, target.unsqueeze(1))
    compensated = difference + q * difference.detach().clamp_min(0.0)
    mitigation = mitigation[target].movedim(-1, 1)
    # Large logits have no digits left for the mitigation: only their differences have.
    counted = torch.where(mitigation.isneginf(), mitigation, compensated.detach())
    return compensated - counted.amax(dim=1, keepdim=True) + mitigation
