"""Logits and what goes with them as rows of pixels; the weights of resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def as_rows(logits: Tensor) -> Tensor:
    """(N, C, pixels), a view wherever strides allow; a plain (N, C) is one image of N pixels."""
    return logits.t().unsqueeze(0) if logits.dim() == 2 else logits.flatten(2)


def pixel_rows(image: Tensor) -> Tensor:
    """The same for a tensor with one number a pixel: (N, pixels)."""
    return image.unsqueeze(0) if image.dim() == 1 else image.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """What :func:`as_rows` made rows of, of the shape of ``like``."""
    return rows.squeeze(0).t() if like.dim() == 2 else rows.view(like.shape)


def resizing_weight(size_in: int, size_out: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """What each output of bilinear resizing takes of each input along an axis: (output, input)."""
    # Resizing the unit vectors gives F.interpolate's own weights.
    unit = torch.eye(size_in, dtype=dtype, device='cpu').unsqueeze(0)
    return F.interpolate(unit, size_out, mode='linear', align_corners=align_corners)[0].t()
