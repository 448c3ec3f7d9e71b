"""Random batches: shapes, ignored pixels, absent classes, dtypes and memory layouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles.common import Pixels

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Batch:
    logits: Tensor
    target: Tensor
    ignore_index: int = 255

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    def flat_logits(self, values: Tensor) -> Tensor:
        """(N, C, ...) to (pixels, C), float64."""
        return values.detach().double().movedim(1, -1).reshape(-1, self.num_classes)

    @property
    def valid(self) -> Tensor:
        return (self.target != self.ignore_index).flatten()

    def pixels(self) -> Pixels:
        rows = self.flat_logits(self.logits)[self.valid].tolist()
        return list(zip(rows, self.target.flatten()[self.valid].tolist(), strict=True))


def in_layout(values: Tensor, layout: str) -> Tensor:
    if layout == 'channels_last' and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == 'strided':
        wide = torch.zeros(*values.shape[:-1], 2 * values.shape[-1], dtype=values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    return values


@st.composite
def batches(
    draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = DTYPES, max_pixels: int = 24
) -> Batch:
    num_classes = draw(st.integers(2, 6))
    n = draw(st.integers(1, 3))
    spatial = draw(st.sampled_from([(), (4,), (2, 3), (2, 2, 2), (1, max_pixels // n)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.3, 1.0, 4.0]))
    logits = scale * torch.randn(n, num_classes, *spatial, generator=generator, dtype=torch.double)
    # Labels of only some of the classes, so that classes are absent.
    present = draw(st.integers(1, num_classes))
    target = torch.randint(present, (n, *spatial), generator=generator)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    target[torch.rand(target.shape, generator=generator) < share] = 255
    layout = draw(st.sampled_from(['contiguous', 'channels_last', 'strided']))
    logits = in_layout(logits.to(draw(st.sampled_from(dtypes))), layout if spatial else 'strided')
    return Batch(logits.requires_grad_(), target)
