"""Lovasz-Softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_shapes, valid_pixels
from .class_nll import compute_dtype


def lovasz_softmax(logits: Tensor, target: Tensor, *, ignore_index: int | None = 255) -> Tensor:
    check_shapes(logits, target)
    target = target.long()
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    p = F.softmax(logits.to(compute_dtype(logits)), dim=1).transpose(0, 1).flatten(1)
    truth = (
        target.flatten() == torch.arange(num_classes, device=p.device)[:, None]
    ) & valid.flatten()
    errors = torch.where(valid.flatten(), torch.where(truth, 1 - p, p), 0.0)
    ranked, order = errors.sort(dim=1, descending=True)
    hits = truth.gather(1, order).cumsum(1)
    total = truth.sum(1, keepdim=True)
    rank = torch.arange(1, p.shape[1] + 1, device=p.device)
    jaccard = 1 - (total - hits).to(p.dtype) / (total + rank - hits)
    step = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(jaccard[:, :1]))
    present = total.squeeze(1) > 0
    per_class = torch.where(present, (ranked * step).sum(1), 0.0)
    return per_class.sum() / present.sum().clamp_min(1)
