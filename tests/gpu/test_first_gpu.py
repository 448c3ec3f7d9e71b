"""`make first-gpu`, tried on the pretended GPU: nothing of it may fail but the hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_recall.losses import available_losses

ROOT = Path(__file__).parents[2]
RUN = """
import runpy, sys
from tests.gpu.device import leave, load

load('cuda')
sys.argv = sys.argv[:1] + ['--small', '--out', sys.argv[1]]
runpy.run_path('benchmarks/first_gpu.py', run_name='__main__')
leave()
"""


@pytest.mark.slow
def test_the_protocol_of_a_first_gpu(tmp_path: Path) -> None:
    out = tmp_path / 'record.json'
    done = subprocess.run(
        [sys.executable, '-c', RUN, out],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    record = json.loads(out.read_text())
    assert {row['loss'] for row in record['correctness']} == set(available_losses())
    assert [row for row in record['correctness'] if not row.get('right')] == []
    rows = [row for group in record['costs'] for row in group['rows']]
    rows += [part for tail in record['tails'] for part in (tail['fused'], tail['stock'])]
    assert [row for row in rows + record['deterministic'] if 'error' in row] == []
