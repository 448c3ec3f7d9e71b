"""Random batches: shapes, ignored pixels, absent classes, dtypes and memory layouts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles.common import Pixels

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
TARGET_DTYPES = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
SHAPES = (
    *((), (1,), (4,), (2, 3), (1, 1), (2, 2, 2), (1, 12), (7, 1, 1)),
    *((0,), (3, 0), (0, 1, 2)),
)
"""Of an image; the last ones have no pixel."""
MAX_LOGITS = 2400
"""In a hostile batch: the oracles take a microsecond a logit, or several."""


@dataclass
class Batch:
    logits: Tensor
    target: Tensor
    ignore_index: int = 255

    @property
    def num_classes(self) -> int:
        """Two where there is one channel."""
        return max(self.logits.shape[1], 2)

    def flat_logits(self, values: Tensor) -> Tensor:
        """(N, C, ...) to (pixels, C), float64; of one channel z the logits (0, z)."""
        rows = values.detach().double().movedim(1, -1).reshape(-1, self.logits.shape[1])
        return torch.cat([torch.zeros_like(rows), rows], 1) if rows.shape[1] == 1 else rows

    @property
    def valid(self) -> Tensor:
        return (self.target.long() != self.ignore_index).flatten()

    def images(self) -> list[int]:
        """The number of the image of each of the ``pixels()``."""
        number = torch.arange(len(self.target)).view(-1, *[1] * (self.target.dim() - 1))
        return number.expand(self.target.shape).flatten()[self.valid].tolist()

    def pixels(self) -> Pixels:
        rows = self.flat_logits(self.logits)[self.valid].tolist()
        return list(zip(rows, self.target.long().flatten()[self.valid].tolist(), strict=True))


def in_layout(values: Tensor, layout: str) -> Tensor:
    if layout == 'channels_last' and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == 'strided':
        wide = torch.zeros(*values.shape[:-1], 2 * values.shape[-1], dtype=values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    return values


layouts = st.sampled_from(['contiguous', 'channels_last', 'strided'])


@st.composite
def generators(draw: st.DrawFn) -> torch.Generator:
    return torch.Generator().manual_seed(draw(st.integers(0, 2**31)))


@st.composite
def batches(
    draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = DTYPES, max_pixels: int = 24
) -> Batch:
    """What training may bring: 2 to 6 classes, some absent, some pixels ignored."""
    num_classes = draw(st.integers(2, 6))
    n = draw(st.integers(1, 3))
    spatial = draw(st.sampled_from([(), (4,), (2, 3), (2, 2, 2), (1, max_pixels // n)]))
    generator = draw(generators())
    scale = draw(st.sampled_from([0.3, 1.0, 4.0]))
    logits = scale * torch.randn(n, num_classes, *spatial, generator=generator, dtype=torch.double)
    # Labels of only some of the classes, so that classes are absent.
    present = draw(st.integers(1, num_classes))
    target = torch.randint(present, (n, *spatial), generator=generator)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    target[torch.rand(target.shape, generator=generator) < share] = 255
    layout = draw(layouts) if spatial else 'strided'
    logits = in_layout(logits.to(draw(st.sampled_from(dtypes))), layout)
    return Batch(logits.requires_grad_(), target)


@st.composite
def hostile_batches(draw: st.DrawFn, min_channels: int = 1) -> Batch:
    """What may be passed at all.

    No image or no pixel, up to 3 dimensions, 1 to 1000 channels, every floating type of logits and
    every integer type of target, logits that are all equal, tied, or as large as 60,000, and an
    ``ignore_index`` that is negative, a class, or absent.
    """
    num_channels = draw(st.one_of(st.integers(min_channels, 6), st.integers(min_channels, 1000)))
    num_classes = max(num_channels, 2)
    n = draw(st.integers(0, 3))
    spatial = draw(st.sampled_from(SHAPES))
    if n * math.prod(spatial) * num_classes > MAX_LOGITS:
        n, spatial = 1, (max(MAX_LOGITS // num_classes, 1),)
    generator = draw(generators())
    logits = draw(st.sampled_from([normal, equal, tied, huge]))(
        (n, num_channels, *spatial), generator
    )
    present = draw(st.integers(1, num_classes))
    target = torch.randint(present, (n, *spatial), generator=generator)
    ignore_index = draw(st.sampled_from([255, -1, -100, 0, num_classes - 1, num_classes, 2**40]))
    fitting = [d for d in TARGET_DTYPES if torch.iinfo(d).max >= num_classes - 1]
    dtype = draw(st.sampled_from(fitting))
    if torch.iinfo(dtype).min <= ignore_index <= torch.iinfo(dtype).max:
        share = draw(st.sampled_from([0.0, 0.3, 1.0]))
        target[torch.rand(target.shape, generator=generator) < share] = ignore_index
    logits = in_layout(logits.to(draw(st.sampled_from(DTYPES))), draw(layouts))
    return Batch(logits.requires_grad_(), target.to(dtype), ignore_index)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 3 * torch.randn(shape, generator=generator, dtype=torch.double)


def equal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.full(shape, 1e4 * torch.randn((), generator=generator).item()).double()


def tied(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(-1, 2, shape, generator=generator).double()


def huge(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """-10,000 and 10,000, or up to what float16 can hold."""
    values = 1e4 * (2.0 * torch.randint(2, shape, generator=generator) - 1)
    spread = torch.randint(2, (), generator=generator) * 5 * torch.rand(shape, generator=generator)
    return (values * (1 + spread)).double()
