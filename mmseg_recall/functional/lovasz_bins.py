"""Lovasz-Softmax by counting: how many errors of each class lie in each of many bins.

The loss of a class is the integral over t in [0, 1] of the Jaccard distance when the pixels whose
error is above t are wrong. That takes two numbers, how many of them are foreground and how many
background, and so does the slope dL/de of a pixel. Counts of bins give both, up to the order of the
pixels inside a bin, and counts of several ranks add up.

Errors are counted twice. The coarse bins are the leading bits of the float32 error, 64 an octave.
Each is then divided into fine bins, more where the order inside it matters more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import widest

LOWEST = (127 - 32) << 23
"""The bits of a float32 error of 2^-32; what is smaller counts as that."""
SHIFT = 17
"""Bits of an error below those of its coarse bin."""
USED = (32 << 23 >> SHIFT) + 1
"""Coarse bins of a class up to that of an error of 1, and the number of the one for NaN."""
COARSE = USED + 2
"""With that, and one for what takes no part."""
FINE = 2**17
"""Fine bins of all classes together, besides one for each coarse bin."""


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


def bins_of(errors: Tensor, classes: slice, layout: Layout | None) -> Tensor:
    """The bin of each error of some classes, (N, classes, pixels); below 0 it takes no part."""
    bits = ((errors.float().view(torch.int32) & 0x7FFFFFFF) - LOWEST).clamp_(0, USED << SHIFT)
    bits.masked_fill_(errors < 0, (USED + 1) << SHIFT)
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
    total = counts.cumsum(1)
    at_end = total[:, sizes.cumsum(0) - 1]
    before, all_wrong, share = (
        x.repeat_interleave(sizes, output_size=counts.shape[1])
        for x in (F.pad(at_end[1, :-1], (1, 0)), layout.pixels + at_end[0], share)
    )
    left, union = (total[1] - before).float(), (all_wrong - total[0]).clamp_min_(1).float()
    b, f = counts.float()
    high, low = 1 / union, 1 / (union + b)
    # The mean of two orders, all of the foreground before the background and behind it.
    slopes = torch.stack([(left - f / 2) * high * low, (high + low) / -2])
    rise = (left * b * high + f) * low
    value = (layout.middle * rise * share).sum()
    return Score(value, F.pad(slopes.mul_(share), (0, 1)))
