"""Online hard example mining over the pixels of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hardest_mean(losses: Tensor, valid: Tensor, ratio: float = 0.7) -> Tensor:
    """Mean of the ceil(ratio N) largest losses among the N valid pixels of the batch.

    Args:
        losses: Per-pixel losses, any shape, floating.
        valid: Bool, same shape.
        ratio: Share of the valid pixels to keep, in (0, 1].

    Returns:
        Scalar; 0, connected to the graph, when no pixel is valid. NaN losses give NaN.

    Example:
        >>> import torch
        >>> hardest_mean(torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([1, 1, 1, 0]).bool())
        tensor(2.)

    Source: Sec. 4.1 (top 70%); Shrivastava et al. 2016.
    """
    losses = torch.where(valid, losses, -math.inf).flatten()
    if losses.device.type == 'cpu' and not torch.compiler.is_compiling():
        kept = _keep(int(valid.sum()), ratio)
        hardest = losses.topk(kept, sorted=False).values
        return hardest.sum() / max(kept, 1)
    # The number to keep stays on the device: a mask over the sorted losses, no synchronisation.
    ranked = losses.sort(descending=True).values
    kept_on_device = torch.ceil(valid.sum().double() * ratio - 1e-6)
    keep = torch.arange(len(ranked), device=ranked.device) < kept_on_device
    return torch.where(keep, ranked, 0.0).sum() / kept_on_device.clamp_min(1).to(ranked.dtype)


def _keep(num_valid: int, ratio: float) -> int:
    # 0.7 * N is a hair above the integer for some N; that must not keep one pixel more.
    return math.ceil(num_valid * ratio - 1e-6)
