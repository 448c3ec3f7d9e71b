from __future__ import annotations

import pytest
from mmengine.registry import init_default_scope

from mmseg_recall.functional import kernels

from .cases import CASES, Case


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Each path of each loss, without the compiled kernel where the case says so."""
    if not request.param.kernel:
        monkeypatch.setattr(kernels, 'LIBRARY', None)
    return request.param


@pytest.fixture(autouse=True, scope='package')
def mmseg_scope() -> None:
    init_default_scope('mmseg')
