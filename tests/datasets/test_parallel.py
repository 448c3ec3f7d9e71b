"""Work on all cores, started from a process that has threads of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import cv2
import numpy as np
from pathlib import Path
from mmseg_recall.datasets.mini_scenes import write_mini_scenes

if __name__ == '__main__':
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((4000, 4000, 3), np.uint8), (31, 31), 5)
    write_mini_scenes(Path(r'{out}'), frames=2, width=128, height=64)
"""


@pytest.mark.slow
def test_workers_of_a_process_with_opencv_threads(tmp_path):
    """A forked copy of it would wait for threads that it does not have."""
    script = tmp_path / 'render.py'
    script.write_text(CODE.format(out=tmp_path / 'raw'))
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, capture_output=True)
    assert len(list((tmp_path / 'raw').rglob('*.png'))) == 2 * 2 * 8
