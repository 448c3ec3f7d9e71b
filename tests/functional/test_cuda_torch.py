"""The torch operations for GPUs without Triton, here on tensors in main memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmseg_recall.functional.checks import compute_dtype
from mmseg_recall.functional.engines.cuda_torch import CUDA_TORCH
from mmseg_recall.functional.engines.plain import PLAIN
from mmseg_recall.functional.seesaw import _log_mitigation

COUNTS = torch.tensor([5, 900, 40, 1, 0, 77])
ARGUMENTS = {
    'class_sums': [(255, None), (None, torch.rand(2, 9, 11)), (255, torch.rand(2, 9, 11))],
    'resized_class_sums': [(255, False), (255, True)],
    'pixel_nll': [(255,), (None,)],
    'soft_counts': [(255, False), (255, True)],
    'adjusted_nll': [
        (255, None, _log_mitigation(COUNTS, 0.8), 2.0),
        (255, torch.rand(2, 9, 11), _log_mitigation(COUNTS, 0.8)[:, 1:2].contiguous(), 0.0),
    ],
}
CASES = [(name, case) for name, cases in ARGUMENTS.items() for case in cases]


def outcome(engine, name: str, case: tuple, x: Tensor, y: Tensor) -> tuple[list, Tensor, Tensor]:
    x = x.detach().requires_grad_()
    case = tuple(c.to(compute_dtype(x)) if isinstance(c, Tensor) else c for c in case)
    outputs = getattr(engine, name)(x, y, *case)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    smooth = [o for o in outputs if o.requires_grad]
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in smooth]
    value = sum((o * f).sum() for o, f in zip(smooth, factors, strict=True))
    [grad] = torch.autograd.grad(value, x, retain_graph=True)
    [again] = torch.autograd.grad(value, x, create_graph=True)
    [second] = torch.autograd.grad((again.to(torch.double) ** 2).sum(), x)
    return [o.detach() for o in outputs], grad, second


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('name', 'case'), CASES, ids=lambda v: v if isinstance(v, str) else '')
def test_equals_the_plain_path(name: str, case: tuple, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size = (4, 5) if name == 'resized_class_sums' else (9, 11)
    x = (3 * torch.randn(2, 6, *size, generator=generator)).to(dtype)
    y = torch.randint(6, (2, 9, 11), generator=generator)
    if case[0] is not None:
        y[torch.rand(y.shape, generator=generator) < 0.2] = 255
    got, want = (outcome(engine, name, case, x, y) for engine in (CUDA_TORCH, PLAIN))
    exact = dtype == torch.float64
    for a, b in zip(got[0], want[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12 if exact else 1e-5, atol=1e-6)
    rounding = 1e-12 if exact else max(1e-5, 2 * torch.finfo(dtype).eps)
    for a, b in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=rounding, atol=rounding * b.abs().max().item())


@pytest.mark.parametrize('name', ['class_sums', 'pixel_nll', 'soft_counts', 'adjusted_nll'])
@pytest.mark.parametrize('offset', [0.0, 1e4, -1e4])
def test_large_logits(name: str, offset: float) -> None:
    """Of the order of what float32 can hold a hundredth of; a class that is impossible."""
    generator = torch.Generator().manual_seed(0)
    x = 30 * torch.randn(1, 6, 9, 11, generator=generator) + offset
    y = torch.randint(5, (1, 9, 11), generator=generator)
    x[0, 5, 3] = -torch.inf
    case = tuple(
        c if not isinstance(c, Tensor) or c.dim() == 2 else None for c in ARGUMENTS[name][0]
    )
    got = outcome(CUDA_TORCH, name, case, x, y)
    want = outcome(PLAIN, name, case, x.double(), y)
    torch.testing.assert_close(got[0][0].double(), want[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1].double(), want[1], rtol=1e-4, atol=1e-5)
