"""Lovasz-Softmax by counting: how many errors of each class lie in each of many bins.

The loss of a class is the integral over t in [0, 1] of the Jaccard distance when the pixels whose
error is above t are wrong. That takes two numbers, how many of them are foreground and how many
background, and so does the slope dL/de of a pixel. Counts of bins give both, up to the order of the
pixels inside a bin, and counts of several ranks add up.

Errors are counted twice. The coarse bins are the leading bits of the float32 error, 64 an octave.
Each is then divided into fine bins, more where the order inside it matters more.

Among the hardest pixels of a small class one place in the order is much of the gradient. They are
few, and their slopes come from their own errors instead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import widest
from .ranks import num_ranks, sum_over_ranks

LOWEST = (127 - 32) << 23
"""The bits of a float32 error of 2^-32; what is smaller counts as that."""
SHIFT = 17
"""Bits of an error below those of its coarse bin."""
USED = (32 << 23 >> SHIFT) + 1
"""Coarse bins of a class up to that of an error of 1, and the number of the one for NaN."""
COARSE = USED + 2
"""With that, and one for what takes no part."""
FINE = 2**16
"""Fine bins of all classes together, besides one for each coarse bin."""
HARDEST = 512
"""Pixels of a class are ranked one by one until the union has this many: from there on one place in
the order is less than 1/512 of a slope."""
NOT_RANKED = 2**31 - 1
"""In place of a key, which is twice the bits of an error, as of its bin, and 1 for foreground."""


class Layout(NamedTuple):
    """The fine bins. Those of a class lie side by side, from small errors to large ones."""

    first: Tensor
    """(C, COARSE) int32: the number of the first one in each coarse bin, times 32, plus how many of
    the low bits of an error do not tell fine bins apart."""
    pixels: Tensor
    """(C,) int64, of each class."""
    sizes: Tensor
    """(C,) int64, bins of each class."""
    middle: Tensor
    """(bins,) the error in the middle of each; NaN if there was one."""


class Score(NamedTuple):
    value: Tensor
    """The loss."""
    slopes: Tensor
    """(2, bins + 1) dL/dp of the background and of the foreground in each bin; 0 in the last."""
    lowest: Tensor
    """(C,) the bin from which on the pixels of the class are ranked."""


def bits_of(errors: Tensor) -> Tensor:
    """Above those of the lowest error, so that shifted they are the coarse bin."""
    bits = ((errors.float().view(torch.int32) & 0x7FFFFFFF) - LOWEST).clamp_(0, USED << SHIFT)
    return bits.masked_fill_(errors < 0, (USED + 1) << SHIFT)


def bins_of(errors: Tensor, classes: slice, layout: Layout | None) -> Tensor:
    """The bin of each error of some classes, (N, classes, pixels); below 0 it takes no part."""
    bits = bits_of(errors)
    rows = torch.arange(classes.start, classes.stop, device=errors.device).unsqueeze(1)
    bins = (bits >> SHIFT) + COARSE * rows
    if layout is None:
        return bins
    first = layout.first.flatten()[bins]
    return ((first >> 5) + ((bits & ((1 << SHIFT) - 1)) >> (first & 31))).long()


def lay_bins(counts: Tensor) -> Layout:
    """Divide the coarse bins.

    Where a coarse bin with b background and f foreground pixels has m fine ones, the square of the
    gradient is wrong by about crowd / m^2 + pairs / m, and the value by rise / m. Each of the three
    has its part of the fine bins, shared out such that the sum over the coarse bins is least.

    Args:
        counts: (2, C, COARSE) int64, of background and foreground.
    """
    not_a_number = counts[..., USED].any()
    counts = counts[..., :USED]
    edges = torch.arange(USED + 1, dtype=torch.int32, device=counts.device) << SHIFT
    edges = widest((edges + LOWEST).view(torch.float32).clamp_max_(1.0))
    width, error = edges.diff(), (edges[1:] + edges[:-1]) / 2
    b, f = widest(counts)
    below_or_in, pixels = counts.cumsum(2), counts[1].sum(1)
    left = widest(below_or_in[1])
    union = widest((pixels + below_or_in[0, :, -1]).unsqueeze(1) - below_or_in[0]).clamp_min_(1)
    high, low = 1 / union, 1 / (union + b)
    # How far a slope moves the logits, and the mean of 1 / union^4 with the background spread out.
    square = (error * (1 - error)) ** 2 * high * low * (high * high + high * low + low * low) / 3
    pairs = square * b * (f + (b - 1).clamp_min_(0) * left**2 * high * low)
    pairs.masked_fill_(union + b <= HARDEST, 0.0)  # all of them ranked
    crowd = pairs * (f + b)
    rise = width * (left * b * high + f) * low
    share = torch.zeros_like(square)
    for part, need in ((0.4, crowd ** (1 / 3)), (0.5, pairs**0.5), (0.1, rise**0.5)):
        share += part * need / need.sum().clamp_min(torch.finfo(need.dtype).tiny)
    num_bins = share.numel() + FINE
    # Powers of two, of which rounding down leaves bins over: as many more as there is room for.
    power = torch.zeros_like(share, dtype=torch.int64)
    for scale in (1.0, 1.2, 1.5, 2.0):
        larger = torch.log2(1 + share * (FINE * scale)).long().clamp_max_(SHIFT)
        power = torch.where((1 << larger).sum() <= num_bins, larger, power)
    number = 1 << power
    start = number.flatten().cumsum(0).view_as(number) - number
    # From one fine bin of a coarse one to the next.
    step = (width / number).masked_fill_(not_a_number, float('nan'))
    before = edges[:-1] + step * (0.5 - widest(start))
    number[-1, -1] += num_bins - number.sum()
    step, before = (
        x.flatten().repeat_interleave(number.flatten(), output_size=num_bins)
        for x in (step, before)
    )
    first = (start << 5) + SHIFT - power
    nowhere = torch.full_like(start[:, :2], (num_bins << 5) + SHIFT)
    return Layout(
        torch.cat([first, nowhere], 1).int(),
        pixels,
        number.sum(1),
        step.mul_(torch.arange(num_bins, device=step.device)).add_(before),
    )


def score_bins(counts: Tensor, layout: Layout) -> Score:
    """The loss from the counts of the fine bins, (2, bins + 1) int64."""
    counts, sizes = counts[:, :-1], layout.sizes
    present = layout.pixels > 0
    share = present.float() / present.sum().clamp_min(1)
    total, ends = counts.cumsum(1), sizes.cumsum(0)
    at_end = total[:, ends - 1]
    before, all_wrong, share = (
        x.repeat_interleave(sizes, output_size=counts.shape[1])
        for x in (F.pad(at_end[1, :-1], (1, 0)), layout.pixels + at_end[0], share)
    )
    left, union = total[1] - before, (all_wrong - total[0]).clamp_min_(1)
    ranked = F.pad(((union + counts[0] <= HARDEST) & (share > 0)).cumsum(0), (1, 0))
    slopes, rise = _slopes_and_rise(left, union, *counts)
    value = (layout.middle * rise * share).sum()
    lowest = ends - (ranked[ends] - ranked[ends - sizes])
    return Score(value, F.pad(slopes.mul_(share), (0, 1)), lowest)


def _slopes_and_rise(*counts: Tensor) -> tuple[Tensor, Tensor]:
    """(dL/dp of background and foreground that tie, and how much the Jaccard distance grows).

    Args:
        counts: Foreground not above them, union without them, background and foreground of them.
    """
    left, union, b, f = (x.float() for x in counts)
    high, low = 1 / union, 1 / (union + b)
    # The mean of two orders, all of the foreground before the background and behind it.
    slopes = torch.stack([(left - f / 2) * high * low, (high + low) / -2])
    return slopes, (left * b * high + f) * low


def rank_hardest(keys: Tensor, pixels: Tensor, sync: bool) -> tuple[Tensor, Tensor]:
    """The order of the hardest pixels of each class, and their slopes but for the share of a class.

    Args:
        keys: (C, n) int32 of this rank, NOT_RANKED for none; on all ranks HARDEST at most.
        pixels: (C,) int64, of each class on all ranks.
        sync: Whether to rank those of all ranks.

    Returns:
        (bits of the errors, (C, m), ascending; (2, C, m) the slopes of background and foreground).
    """
    keys = hardest_of_all(keys, sync)
    ranked = keys < NOT_RANKED
    bits, f = (keys >> 1).contiguous(), (keys & 1) * ranked
    from_here = torch.stack([ranked.int() - f, f]).flip(2).cumsum(2).flip(2)
    from_here = F.pad(from_here, (0, 1))
    first, behind = (torch.searchsorted(bits, bits, right=right) for right in (False, True))
    above = from_here.gather(2, behind.expand(2, -1, -1))
    tied = from_here.gather(2, first.expand(2, -1, -1)) - above
    pixels = pixels.unsqueeze(1)
    return bits, _slopes_and_rise(pixels - above[1], pixels + above[0], *tied)[0]


def hardest_of_all(keys: Tensor, sync: bool) -> Tensor:
    """The keys of every rank, (C, HARDEST at most), in ascending order, of those of this one."""
    keys = keys.sort(1).values[:, :HARDEST]
    if num_ranks(sync) == 1:
        return keys
    rank = torch.distributed.get_rank()
    mine = torch.arange(num_ranks(), device=keys.device).unsqueeze(1) == rank
    number, place = (keys < NOT_RANKED).sum(1), torch.arange(HARDEST, device=keys.device)
    numbers, _ = sum_over_ranks(mine * number)
    at = numbers[:rank].sum(0).unsqueeze(1) + place[: keys.shape[1]]
    everywhere = keys.new_zeros(len(keys), HARDEST + 1)  # the last is for none
    everywhere.scatter_(1, at.masked_fill_(keys == NOT_RANKED, HARDEST), keys)
    keys, _ = sum_over_ranks(everywhere[:, :-1].contiguous())
    return keys.masked_fill_(place >= numbers.sum(0).unsqueeze(1), NOT_RANKED).sort(1).values
