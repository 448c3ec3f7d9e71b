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


@pytest.mark.parametrize(('id_range', 'raises'), [((7, 300), True), ((2**40, -(2**40)), False)])
def test_labels_of_an_earlier_cuda_step(
    id_range: tuple[int, int], raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = Event(done=False)
    pending = [checks._Pending(event, torch.tensor(id_range), 5)]
    monkeypatch.setattr(checks, '_pending', pending)
    checks._raise_if_earlier_step_failed()  # still under way: nothing is known, nobody waits
    assert len(pending) == 1
    event.done = True
    if raises:
        with pytest.raises(ValueError, match='between 7 and 300, seen in an earlier step'):
            checks._raise_if_earlier_step_failed()
    else:
        checks._raise_if_earlier_step_failed()
    assert not pending


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
