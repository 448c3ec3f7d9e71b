from __future__ import annotations

import pytest
import torch
from mmengine.registry import init_default_scope

from mmseg_recall.functional.engines import cpu_library
from tests.functional.interpreter import use_gpu_kernels

from .cases import CASES, Case


def marked(case: Case) -> object:
    """Interpreted, a kernel takes seconds: RecallLoss stands for its family in `make test`."""
    slow = case.by == 'triton' and case.name != 'RecallLoss' and not torch.cuda.is_available()
    return pytest.param(case, marks=pytest.mark.slow if slow else (), id=str(case))


@pytest.fixture(params=map(marked, CASES))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Each path of each loss, by the kernels that the case says."""
    if request.param.by != 'kernel':
        monkeypatch.setattr(cpu_library, 'LIBRARY', None)
    if request.param.by == 'triton':
        use_gpu_kernels(monkeypatch)
    return request.param


@pytest.fixture(autouse=True, scope='package')
def mmseg_scope() -> None:
    init_default_scope('mmseg')
