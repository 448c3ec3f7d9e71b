"""Settings that have to be made before anything is imported.

Without a GPU Triton interprets its kernels. What `make test-classification` and `make test-hosts`
run is left out where their packages are not installed, the kernels are not read where Triton is
not, and no GPU is pretended where there is no C++ compiler.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

collect_ignore_glob = (
    [] if find_spec('mmpretrain') else ['mmseg_recall/classification/*', 'tests/classification/*']
)
collect_ignore_glob += [] if find_spec('lightning') else ['tests/examples/*']
collect_ignore = (
    []
    if find_spec('triton')
    else [
        'mmseg_recall/functional/engines/cuda_kernels.py',
        'tests/functional/compile_kernels.py',
        *('tests/gpu/ptx.py', 'tests/gpu/test_ptx.py'),
    ]
)
# Devices are pretended by a library in C++, on Linux, for torch's builds without a GPU, and in
# processes of their own.
pretends = which('c++') and sys.platform == 'linux' and not torch.cuda.is_available()
collect_ignore.append('tests/gpu/steps.py' if pretends else 'tests/gpu')


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is imported: mmengine calls it for each dataset."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say where the time went: seconds of each folder, with set-up, added over the processes."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, 'duration') and hasattr(report, 'nodeid'):
                seconds['/'.join(report.nodeid.split('::')[0].split('/')[:2])] += report.duration
    if len(seconds) > 1:
        terminalreporter.section('seconds of each folder')
        for folder, duration in seconds.most_common():
            terminalreporter.write_line(f'{duration:7.1f}  {folder}')
