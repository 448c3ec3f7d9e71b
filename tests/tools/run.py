"""Run a tool of the checkout the way a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Run a command and return its output, stdout and stderr together; fail where it fails.

    A Python script is run with this interpreter, and one thread, so that tests share a machine.
    """
    prefix = [sys.executable] if str(command[0]).endswith('.py') else []
    done = subprocess.run(
        [*prefix, *map(str, command)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
