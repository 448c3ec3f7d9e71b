"""The same bits twice, whatever stands in fresh memory and however many threads there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mmseg_recall.functional.engines import cpu_blocks

from .cases import Case, problem, scorer, value_and_gradient


@pytest.fixture
def deterministic() -> Iterator[None]:
    """As mmengine's ``randomness=dict(deterministic=True)``; fresh memory is then NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several blocks on several threads, which finish in any order."""
    before = torch.get_num_threads()
    for name in ('TORCH_BLOCK', 'LIBRARY_BLOCK', 'SMALL_BLOCK'):
        monkeypatch.setattr(cpu_blocks, name, 500)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('many_blocks', 'deterministic')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_same_bits_twice(case: Case, dtype: torch.dtype) -> None:
    logits, target = problem(case, size=(24, 26))
    logits = logits.to(dtype)

    def run() -> tuple[Tensor, Tensor]:
        return value_and_gradient(scorer(case, target), logits)

    value, gradient = run()
    assert value.isfinite() and gradient.isfinite().all()
    for _ in range(3):
        again, gradient_again = run()
        assert torch.equal(again, value) and torch.equal(gradient_again, gradient)
