"""A GPU pretended on a CPU: ``load('cuda')`` or ``load('mps')`` before torch is imported.

Its tensors lie in memory that the host cannot read, every operation is carried out by torch's
kernels for CPUs (device.cpp), and 'mps' has no float64. Asynchrony, the order of atomic additions
and speed are not simulated. A process has one of the two.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import ContextDecorator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

SOURCE = Path(__file__).with_name('device.cpp')
FOLDER = Path(__file__).parents[2] / 'build' / 'gpu'
DEFINES = {'cuda': ['-DSIM=CUDA', '-DIS_CUDA'], 'mps': ['-DSIM=MPS', '-DNO_FLOAT64']}
COMPILER = shutil.which('c++')


def build(kind: str) -> Path:
    """The library of a device, compiled if it is not there for this source and this torch."""
    assert COMPILER is not None
    torch = _torch()
    key = hashlib.sha256(SOURCE.read_bytes() + version('torch').encode()).hexdigest()[:16]
    library = FOLDER / f'{kind}-{key}.so'
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f'{kind}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            unfinished = library.with_suffix('.unfinished')
            flags = ['-std=c++20', '-O1', '-shared', '-fPIC', *DEFINES[kind]]
            headers = [torch / 'include', torch / 'include/torch/csrc/api/include']
            libraries = [f'-L{torch / "lib"}', '-ltorch_cpu', '-lc10', '-ltorch']
            command = [COMPILER, *flags, *(f'-I{folder}' for folder in headers)]
            subprocess.run([*command, SOURCE, '-o', unfinished, *libraries], check=True)
            unfinished.rename(library)
    return library


def load(kind: str) -> ctypes.CDLL:
    """The device's library, whose ``sim_live`` and ``sim_peak`` are bytes."""
    assert 'torch' not in sys.modules
    library = build(kind)
    for name in ('libc10.so', 'libtorch_cpu.so', 'libtorch.so'):
        ctypes.CDLL(str(_torch() / 'lib' / name), mode=ctypes.RTLD_GLOBAL)
    loaded = ctypes.CDLL(str(library))
    for name in ('sim_live', 'sim_peak'):
        getattr(loaded, name).restype = ctypes.c_size_t

    import torch
    import torch._dynamo
    import torch._inductor.utils

    if kind == 'cuda':
        _pretend_cuda(torch)
    else:
        torch.backends.mps.is_available = torch.backends.mps.is_built = lambda: True
        torch.mps.Event = Event
    return loaded


def leave() -> NoReturn:
    """End the process, and skip the interpreter's own end.

    Autograd's thread of the device may ask for the GIL then. Python 3.11 ends such a thread by
    unwinding it, which C++ answers with an abort.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _torch() -> Path:
    spec = find_spec('torch')
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


class Stream:
    cuda_stream = 0

    def synchronize(self) -> None:
        pass


class Event:
    """Done when :attr:`arrived` says so, of all events."""

    arrived = True

    def __init__(self, **_: Any) -> None:
        pass

    def record(self, stream: Stream | None = None) -> None:
        pass

    def query(self) -> bool:
        return Event.arrived

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return 0.0


class _On(ContextDecorator):
    def __init__(self, device: Any = None) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _pretend_cuda(torch: Any) -> None:
    torch._C._cuda_getCurrentRawStream = lambda device: 0
    torch._C._cuda_getDevice = lambda: 0
    numbers = dict(device_count=1, current_device=0, memory_allocated=0, max_memory_allocated=0)
    answers = dict(
        is_available=True,
        is_initialized=True,
        _is_compiled=True,
        _is_in_bad_fork=False,
        is_current_stream_capturing=False,
        get_device_capability=(8, 6),
        get_device_name='pretended',
        get_device_properties=SimpleNamespace(name='pretended', major=8, minor=6),
        **numbers,
    )
    nothing = [
        '_lazy_init',
        'init',
        'empty_cache',
        'synchronize',
        'reset_peak_memory_stats',
        'manual_seed',
        'manual_seed_all',
        'set_device',
        'set_sync_debug_mode',
    ]
    for name, answer in (answers | dict.fromkeys(nothing)).items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.Stream, torch.cuda.Event, torch.cuda.device = Stream, Event, _On
    torch.cuda.current_stream = torch.cuda.default_stream = lambda device=None: Stream()
