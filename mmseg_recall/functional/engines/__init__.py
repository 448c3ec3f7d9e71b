"""The ways to compute what every loss needs of the logits, and the one place that picks.

A file is named after where its code runs: ``plain`` anywhere, ``cpu`` and ``cuda`` there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import cpu, cpu_library, cuda, cuda_torch
from .engine import Engine
from .plain import PLAIN

IMPLS = ('auto', 'plain', 'cpu', 'cuda', 'fused')
"""'fused' is the engine of the device that the logits are on."""


def pick_engine(logits: Tensor, impl: str = 'auto') -> Engine:
    """The engine for these logits.

    Args:
        logits: Whose device, type and size decide.
        impl: 'plain', the reference, works everywhere; 'cpu' and 'cuda' where the logits are
            there; 'fused' is the one of these two that fits, and so is 'auto', but for few pixels
            on a GPU. Under ``torch.compile`` all are 'plain', which it fuses by itself.
            What these cannot do (float64, no compiled library, no Triton) torch operations do.

    Raises:
        ValueError: An unknown impl, or one of another device.
    """
    if impl not in IMPLS:
        raise ValueError(f'impl must be one of {IMPLS}, got {impl!r}')
    device = logits.device.type
    if impl in ('cpu', 'cuda') and impl != device:
        raise ValueError(f'impl={impl!r} and logits on {logits.device}: take "auto", or move them')
    if impl == 'plain' or torch.compiler.is_compiling():
        return PLAIN
    if device == 'cpu':
        return cpu.CPU if cpu_library.usable(logits) else PLAIN
    many_pixels = cuda_torch.usable(logits)
    if (many_pixels or impl != 'auto') and cuda.usable(logits):
        return cuda.CUDA
    return cuda_torch.CUDA_TORCH if many_pixels else PLAIN
