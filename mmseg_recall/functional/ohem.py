"""Online hard example mining over the pixels of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import widest
from .ranks import sum_over_ranks

# Bits of a loss that one round settles: 2048 counts, three rounds for float32.
ROUND = 11


def hardest_mean(losses: Tensor, valid: Tensor, ratio: float = 0.7, *, sync: bool = True) -> Tensor:
    """Mean of the k = ceil(ratio N) largest losses among the N valid pixels of the batch.

        L = (1/k) (sum_{l_n > t} l_n + (k - #{n : l_n > t}) t),    t the k-th largest loss

    Pixels that tie at t share evenly what is left of the k, so that the gradient depends neither
    on the order of the pixels nor on how they are split over ranks. Nothing is sorted, and the
    host does not wait for the device.

    Args:
        losses: Per-pixel losses, any shape, floating.
        valid: Bool, same shape.
        ratio: Share of the valid pixels to keep, in (0, 1].
        sync: The batch is that of all W ranks, and each returns W times its share of the mean.
            Three sums of 2048 counts for float32, six for float64.

    Returns:
        Scalar; 0, connected to the graph, when no pixel is valid. NaN losses give NaN.

    Example:
        >>> import torch
        >>> hardest_mean(torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([1, 1, 1, 0]).bool())
        tensor(2.)

    Source: Sec. 4.1 (top 70%); Shrivastava et al. 2016.
    """
    limit, share, kept, world_size = _kth_largest(losses.detach(), valid, ratio, sync)
    # A NaN is not at most the limit, and counts in full.
    above = (losses.detach() <= limit).logical_not_().logical_and_(valid)
    tied = (losses.detach() == limit).logical_and_(valid)
    weight = above.to(losses.dtype).masked_fill_(tied, share)
    total = (torch.where(weight > 0, losses, 0.0) * weight).sum()
    return world_size * total / kept.clamp_min(1).to(losses.dtype)


def _kth_largest(
    losses: Tensor, valid: Tensor, ratio: float, sync: bool
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(the k-th largest, the share that a pixel which equals it has, k, W), but W on the device.

    It is found from the left: the losses whose bits agree with it so far are counted by their next
    bits.
    """
    top = size = losses.element_size() * 8
    integer = torch.int32 if size == 32 else torch.int64
    sign = -1 << (size - 1)
    # Integers whose bits, read from the left, order as the losses do.
    bits = losses.contiguous().view(integer)
    keys = (bits >> (size - 1)).bitwise_or_(sign).bitwise_xor_(bits).flatten()
    agrees = valid.flatten()
    on_host = losses.device.type == 'cpu' and not torch.compiler.is_compiling()
    found = above = kept = torch.zeros((), dtype=integer, device=losses.device)
    for shift in range(size - ROUND, -ROUND, -ROUND):
        shift, first = max(shift, 0), top == size
        width, top = top - shift, shift
        digits = (keys >> shift).bitwise_and_((1 << width) - 1).long()
        counts = torch.zeros(1 << width, dtype=torch.int64, device=losses.device)
        counts = counts.scatter_add_(0, digits, agrees.long())
        counts, world_size = sum_over_ranks(counts, sync)
        at_least = counts.flip(0).cumsum(0).flip(0)
        if first:
            # 0.7 * N is a hair above the integer for some N; that must not keep one pixel more.
            kept = torch.ceil(widest(at_least[0]) * ratio - 1e-6).long()
        digit = ((above + at_least >= kept).sum() - 1).unsqueeze(0)
        tied = counts.gather(0, digit).squeeze(0)
        above = above + at_least.gather(0, digit).squeeze(0) - tied
        found = found | (digit.squeeze(0).to(integer) << shift)
        agrees = (digits == digit).logical_and_(agrees)
        if on_host:  # where a shape may depend on values
            keys = keys[agrees]
            agrees = torch.ones_like(keys, dtype=torch.bool)
    limit = (found ^ ((~found >> (size - 1)) | sign)).view(losses.dtype)
    share = ((kept - above) / tied.clamp_min(1)).to(losses.dtype)
    return limit, share, kept, world_size
