"""Run a function over many files with all cores and a progress bar."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar('T')
R = TypeVar('R')


def available_cores() -> int:
    """Number of cores that this process may use (a container often has fewer than the machine).

    Example:
        >>> available_cores() >= 1
        True
    """
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[T], R], items: Sequence[T], description: str, threads: bool = False
) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in order, computed by one process a core.

    Args:
        function: A picklable function, so a module's own or a ``functools.partial`` of one.
        items: Picklable arguments.
        description: Text before the progress bar.
        threads: Threads instead of processes, for what runs code of a user: nothing need be
            picklable then, nor the script that is run have a main guard.

    Raises:
        Exception: Whatever ``function`` raises for the first failing item; what has not been
            started by then is cancelled.

    Example:
        >>> list(parallel_map(abs, [-1, 2, -3], 'Absolute values'))
        [1, 2, 3]
    """
    # On stderr, where it does not mix with what a tool prints.
    progress = partial(
        track, description=description, total=len(items), console=Console(stderr=True)
    )
    workers = min(available_cores(), len(items))
    if workers <= 1:
        yield from progress(map(function, items))
        return
    pool: Executor = (
        ThreadPoolExecutor(workers)
        if threads
        else ProcessPoolExecutor(workers, mp_context=_process_context())
    )
    with pool:
        try:
            # Chunks spare most of the hand-over, and stay small enough for a lively bar.
            chunk = max(1, min(16, len(items) // (4 * workers)))
            yield from progress(pool.map(function, items, chunksize=chunk))
        finally:
            pool.shutdown(cancel_futures=True)


def _process_context() -> multiprocessing.context.BaseContext:
    # Not plain fork: a copy of a process whose OpenCV or OpenMP has started threads deadlocks.
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    # Imported once, in the server, instead of once in each worker.
    context.set_forkserver_preload([__package__])
    return context
