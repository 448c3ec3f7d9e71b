"""Softmax focal loss, per pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def focal_modulation(nll: Tensor, gamma: float) -> Tensor:
    """Per-pixel focal loss from the negative log-likelihood: (1 - p)^gamma (-log p).

    Args:
        nll: -log p >= 0, any shape.
        gamma: >= 0; 0 gives cross-entropy.

    Returns:
        Tensor of nll's shape and type, differentiable.

    Example:
        >>> import torch
        >>> focal_modulation(torch.tensor([0.0, 0.6931]), gamma=1)
        tensor([0.0000, 0.3465])

    Source: Sec. 4.4 (FocalCE); Lin et al. 2017.
    """
    # expm1 keeps the digits of 1 - p near p = 1; the floor keeps the gradient of a power below 1
    # finite at p = 1, where it is multiplied by nll = 0.
    one_minus_p = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
    return one_minus_p**gamma * nll
