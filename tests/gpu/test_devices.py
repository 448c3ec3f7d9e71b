"""Every loss, the tail, the adjusted segmentor, hook and metric on pretended GPUs (device.py).

costs.json is what a step of each loss takes there, in tensors of the size of its float32 logits:
memory held between forward and backward and at its peak, bytes read and written by torch
operations; and launches. A change that makes one grow fails; one that makes it shrink is written
down by ``python -m tests.gpu.test_devices``.
"""

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
KINDS = ('cuda', 'mps')
COSTS = Path(__file__).with_name('costs.json')
ROOT = Path(__file__).parents[2]


@lru_cache
def outcome(kind: str) -> dict[str, Any]:
    """What a process with that device prints."""
    done = subprocess.run(
        [sys.executable, '-m', 'tests.gpu.steps', kind],
        cwd=ROOT,
        # Triton finds no driver there, and is told of.
        env={k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('kind', KINDS)
def test_the_numbers_are_those_of_the_cpu(kind: str) -> None:
    assert outcome(kind)['differs'] == {}


@pytest.mark.parametrize('kind', KINDS)
def test_the_host_never_waits_for_the_device_in_a_step(kind: str) -> None:
    assert outcome(kind)['waits'] == []


@pytest.mark.parametrize('kind', KINDS)
def test_tensors_of_one_operation_are_on_one_device(kind: str) -> None:
    assert outcome(kind)['mixed'] == []


@pytest.mark.parametrize('kind', KINDS)
def test_no_loss_takes_more_than_it_did(kind: str) -> None:
    known, now = json.loads(COSTS.read_text())[kind], outcome(kind)['table']
    assert known.keys() == now.keys(), 'write the costs down: python -m tests.gpu.test_devices'
    grown = {
        f'{name}: {what}': f'{now[name][what]}, was {cost}'
        for name, costs in known.items()
        for what, cost in costs.items()
        if now[name][what] > cost
    }
    assert grown == {}


if __name__ == '__main__':
    tables = {kind: outcome(kind)['table'] for kind in KINDS}
    COSTS.write_text(json.dumps(tables, indent=1) + '\n')
