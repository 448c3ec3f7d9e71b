"""Promises of ``functional/`` that no loss shows: its imports, and the checks on CUDA."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmseg_recall.functional
from mmseg_recall.functional import checks, valid_pixels, weighted_mean

FOLDER = Path(mmseg_recall.functional.__file__).parent


def test_needs_torch_alone() -> None:
    """Loaded by itself, it runs with the mm packages and the rest of this one out of reach."""
    code = f"""
import importlib.util, sys
for name in ('mmseg', 'mmcv', 'mmengine', 'mmseg_recall'):
    sys.modules[name] = None
spec = importlib.util.spec_from_file_location(
    'functional', {str(FOLDER / '__init__.py')!r}, submodule_search_locations=[{str(FOLDER)!r}])
functional = sys.modules['functional'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(functional)
import torch
sums, counts = functional.class_nll_sums(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]))
print(counts.pixels.tolist())
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '[1, 2]\n', done.stderr


class Event:
    """A CUDA event whose step has, or has not, finished."""

    def __init__(self, done: bool) -> None:
        self.done = done

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


@pytest.fixture
def under_way(monkeypatch: pytest.MonkeyPatch) -> list[checks._Pending]:
    """The smallest and largest id of three checks of 5 classes, the first two of one batch."""
    ranges = torch.tensor([[-7, 300], [0, 300], [2**40, -(2**40)]])
    pending = [checks._Pending(Event(done=False), ids, 5) for ids in ranges]
    monkeypatch.setattr(checks, '_pending', pending)
    return pending


def test_a_bad_batch_on_cuda_is_told_of_once(under_way: list) -> None:
    assert checks._earlier_failure() is None  # nothing is known, and nobody waits
    assert len(under_way) == 3
    for check in under_way:
        check.done.synchronize()
    assert '-7 to 300, seen in an earlier step' in checks._earlier_failure()
    assert checks._earlier_failure() is None and not under_way


def test_ids_that_are_classes_are_no_failure(under_way: list) -> None:
    under_way[:] = [checks._Pending(Event(done=True), torch.tensor([0, 4]), 5), under_way[2]]
    under_way[1].done.synchronize()
    assert checks._earlier_failure() is None and not under_way


def test_a_bad_last_batch_on_cuda_is_told_of_at_the_end(under_way: list) -> None:
    with pytest.warns(UserWarning, match='-7 to 300'):
        checks._tell_at_the_end()
    assert not under_way


def test_no_ignore_index() -> None:
    assert valid_pixels(torch.tensor([0, 1]), 2, None).all()
    with pytest.raises(ValueError, match='255'):
        valid_pixels(torch.tensor([0, 255]), 2, None)


def test_many_unknown_ids_are_cut_short() -> None:
    with pytest.raises(ValueError, match=r'5, 6, .*, 14, \.\.\.'):
        valid_pixels(torch.arange(30), 5, 255)


def test_unknown_normalization_is_refused() -> None:
    with pytest.raises(ValueError, match='pixels'):
        weighted_mean(torch.ones(2), torch.ones(2), torch.ones(2), 'batch')
