"""The Triton kernels as they are compiled, emulated (ptx.py), against the oracles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@lru_cache
def cases() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, '-m', 'tests.gpu.ptx'],
        cwd=ROOT,
        # What is interpreted is not compiled.
        env={k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[0] == '{']


def test_values_and_gradients_are_those_of_the_oracle() -> None:
    wrong = [c for c in cases() if not c['value_error'] < 1e-6]
    wrong += [c for c in cases() if not c['gradient_error'] < c['rounding']]
    assert len(cases()) == 45 and wrong == []


def test_no_races_and_no_stray_addresses() -> None:
    assert [c for c in cases() if c['faults']] == []


def test_logits_are_read_once_each_way() -> None:
    """Forward, backward and gradient are three passes; the rest is a few numbers a pixel."""
    assert [c for c in cases() if c['classes'] == 19 and c['passes'] > 3.5] == []
