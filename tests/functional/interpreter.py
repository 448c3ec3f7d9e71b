"""The kernels of a GPU, on one where there is one, else in Triton's interpreter (conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from mmseg_recall import functional
from mmseg_recall.functional import ClassCounts, adjusted, class_nll, soft_iou
from mmseg_recall.functional.engines import cuda, pick_engine
from mmseg_recall.functional.engines.engine import Engine


def use_gpu_kernels(patch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Have the losses that ``modules`` call on tensors in main memory take the path of a GPU."""
    if torch.cuda.is_available():
        for module in modules:
            for name in ('class_nll_sums', 'resized_class_nll_sums'):
                patch.setattr(module, name, moved(getattr(functional, name)))
    else:
        for module in (adjusted, class_nll, soft_iou):
            patch.setattr(module, 'pick_engine', pick_cuda)
        patch.setattr(cuda, 'check_in_a_later_step', check_at_once)


def moved(function: Callable) -> Callable:
    """The function with its tensors moved to the GPU and what it returns moved back."""

    def call(*tensors: Tensor, **options: Any) -> tuple[Tensor, ClassCounts]:
        options = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in options.items()}
        sums, counts = function(*[t.cuda() for t in tensors], **options)
        return sums.cpu(), ClassCounts(*[c.cpu() for c in counts])

    return call


def pick_cuda(logits: Tensor, impl: str = 'auto') -> Engine:
    """As on a GPU, but for 'auto', which there is 'plain'."""
    if impl == 'plain' or torch.compiler.is_compiling() or not cuda.supported(logits):
        return pick_engine(logits, impl)
    return cuda.CUDA


def check_at_once(low: Tensor, high: Tensor, num_classes: int) -> None:
    if low <= high:
        raise ValueError(f'ids outside [0, {num_classes}): between {low} and {high}')
