"""The memory layout of the logits changes neither value nor gradient; channels_last is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmseg_recall.functional import lovasz
from mmseg_recall.functional.engines import cpu_library

from .cases import Case, problem, scorer, value_and_gradient


def in_layout(logits: Tensor, layout: str) -> Tensor:
    """The same numbers with other strides."""
    if layout == 'channels_last':
        return logits.contiguous(memory_format=torch.channels_last)
    if layout == 'width first':
        return logits.mT.contiguous().mT
    if layout == 'every other pixel':
        return logits.repeat_interleave(2, 3)[..., ::2]
    wide = torch.nn.functional.pad(logits, (3, 3, 2, 2), value=7.0)
    return wide[:, :, 2:-2, 3:-3]


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lovasz-Softmax by the engine: few pixels are sorted by torch's operations."""
    monkeypatch.setattr(lovasz, 'FEW', 0)


def by_autograd(case: Case) -> bool:
    """Whether torch's operations make the gradient, some of which know contiguous ones only."""
    return case.path == 'plain' or (case.path == 'loss' and cpu_library.LIBRARY is None)


@pytest.mark.parametrize('layout', ['channels_last', 'width first', 'every other pixel', 'crop'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_same_numbers(case: Case, layout: str, dtype: torch.dtype) -> None:
    logits, target = problem(case)
    logits = logits.to(dtype)
    score = scorer(case, target)
    expected, want = value_and_gradient(score, logits)
    other = in_layout(logits, layout)
    assert torch.equal(other, logits) and not other.is_contiguous()
    value, gradient = value_and_gradient(score, other)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    tolerance = max(torch.finfo(dtype).eps, 1e-6) * want.abs().max().item()
    torch.testing.assert_close(gradient, want, rtol=0, atol=tolerance)
    assert gradient.untyped_storage().nbytes() == gradient.nbytes  # no gaps
    if layout == 'channels_last' and not by_autograd(case):
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_one_image_for_all(case: Case) -> None:
    """Expanded logits, of which each image is the same memory."""
    logits, target = problem(case)
    score = scorer(case, target)
    single = logits[:1]
    value, gradient = value_and_gradient(lambda x: score(x.expand(2, -1, -1, -1)), single)
    expected, want = value_and_gradient(lambda x: score(x.repeat(2, 1, 1, 1)), single)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())
