"""Working on logits on CPU block by block: what a block is, on which thread, in what memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..checks import compute_dtype
from .rows import as_rows, from_rows, pixel_rows

# Elements of the logits in a block. Torch's operations want one that fits the cache of a core; the
# library sees to that itself. Below the last, threads cost more than they bring.
TORCH_BLOCK = 2**18
LIBRARY_BLOCK = 2**21
SMALL_BLOCK = 2**17

At = tuple[slice, slice]  # which images, and which of their pixels
Item = TypeVar('Item')
Result = TypeVar('Result')


def in_huge_pages(fresh: Tensor) -> Tensor:
    """The tensor, which nobody has written to yet, in huge pages where the system has them.

    From 32 MiB on, malloc on Linux maps memory afresh unless it has kept a free piece, and a page
    fault every 4 KiB takes longer than the backward that writes it. A kept piece stays as it is.
    """
    if fresh.nbytes >= 2**25 and hasattr(mmap, 'MADV_HUGEPAGE'):
        start, end = fresh.data_ptr(), fresh.data_ptr() + fresh.nbytes
        start += -start % mmap.PAGESIZE
        # A kernel without huge pages refuses; the memory is good all the same.
        _c_library().madvise(start, end - start, mmap.MADV_HUGEPAGE)
    return fresh


@lru_cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def map_blocks(work: Callable[..., Result], logits: Tensor, *pixels: Tensor | None) -> list[Result]:
    """``work(images, x, None, *pixels)`` of the library, block by block; results in their order.

    Args:
        work: Gets which images, their logits (n, C, ...) in float32, and a part of each of pixels.
        logits: (N, C, ...).
        pixels: What has one number a pixel, like target, contiguous, or is None.
    """
    if _is_block(logits):
        return [work(slice(0, logits.shape[0]), logits, None, *pixels)]
    return _map_rows(work, as_rows(logits.detach()), None, pixels)


def gradient_by_blocks(work: Callable[..., None], logits: Tensor, *pixels: Tensor | None) -> Tensor:
    """What ``work(images, x, gradient, *pixels)`` has written to its part of the gradient."""
    if _is_block(logits):
        grad = in_huge_pages(torch.empty_like(logits))
        work(slice(0, logits.shape[0]), logits, grad, *pixels)
        return grad
    rows = as_rows(logits)
    grad = in_huge_pages(torch.empty_like(rows))
    _map_rows(work, rows, grad, pixels)
    return from_rows(grad, logits)


def _is_block(logits: Tensor) -> bool:
    """Whether the library takes all of the logits at once, as they are."""
    few = LIBRARY_BLOCK if logits.shape[0] == 1 else min(SMALL_BLOCK, LIBRARY_BLOCK)
    ready = logits.dtype == torch.float32 and logits.is_contiguous()
    return ready and logits.numel() <= few and logits.dim() > 2


def _map_rows(
    work: Callable[..., Result],
    rows: Tensor,
    grad: Tensor | None,
    pixels: tuple[Tensor | None, ...],
) -> list[Result]:
    cut = [None if p is None else pixel_rows(p) for p in pixels]

    def on_block(at: At, x: Tensor, out: Tensor) -> Result:
        return work(at[0], x, out, *[None if p is None else p[at] for p in cut])

    return map_row_blocks(on_block, rows, grad)


def map_row_blocks(
    work: Callable[[At, Tensor, Tensor], Result],
    rows: Tensor,
    grad: Tensor | None = None,
) -> list[Result]:
    """``work`` on the pixels of (N, C, pixels), block by block; results in the order of the blocks.

    ``work`` gets the images and the pixels of its block, the logits (n, C, k) in the computing
    type, and a tensor like them to write to, whose values go to the block of ``grad``.

    Args:
        work: What is done with a block.
        rows: The logits.
        grad: Like rows, to be written; None where ``work`` only needs working memory.
    """
    num_images, num_classes, num_pixels = rows.shape
    length = max(min(LIBRARY_BLOCK // num_classes, num_pixels), 1)
    # Small images go together.
    images = max(min(SMALL_BLOCK // (num_classes * length), num_images), 1)
    # Gathered first where it is not ready to read: another type, or pixels that are not adjacent.
    copies = rows.dtype not in (torch.float32, torch.float64) or rows.stride(2) != 1
    if not copies and images == num_images and length == num_pixels:
        at = slice(0, num_images), slice(0, num_pixels)
        return [work(at, rows, rows if grad is None else grad)]
    blocks = [
        (slice(n, min(n + images, num_images)), slice(s, min(s + length, num_pixels)))
        for n in range(0, num_images, images)
        for s in range(0, num_pixels, length)
    ]

    def start() -> Callable[[At], Result]:
        size = images * num_classes * length
        buffers = rows.new_empty(2, size, dtype=compute_dtype(rows))

        def on_block(at: At) -> Result:
            x = rows[at[0], :, at[1]]
            copy, out = (b[: x.numel()].view(x.shape) for b in buffers)
            if copies:
                x = copy.copy_(x)
            if grad is None:
                return work(at, x, out)
            to = grad[at[0], :, at[1]]
            result = work(at, x, out if copies else to)
            if copies:
                to.copy_(out)
            return result

        return on_block

    return map_on_threads(start, blocks)


def map_on_threads(
    start: Callable[[], Callable[[Item], Result]], items: list[Item]
) -> list[Result]:
    """The results of the items, in their order, on as many threads as torch uses; without gradient.

    Each thread calls ``start`` once, for its own working memory, and what that returns on one item
    after the other. It works on an item alone, so that an item stays in the cache of one core, and
    threads meet once, not at every operation.
    """
    num_threads = min(torch.get_num_threads(), len(items))
    if num_threads <= 1:
        work = start()
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    shared = iter(list(enumerate(items)))

    def take() -> None:
        with torch.no_grad():
            work = start()
            for i, item in shared:
                results[i] = work(item)

    pool = _pool(torch.get_num_threads())
    for done in [pool.submit(take) for _ in range(num_threads)]:
        done.result()
    return results


@lru_cache(maxsize=1)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads in which torch's operations run on that thread alone."""
    all_started = Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        all_started.wait()

    pool = ThreadPoolExecutor(num_threads, 'mmseg_recall')
    for started in [pool.submit(start) for _ in range(num_threads)]:
        started.result()
    # The setting belongs to each thread, but is also what threads started later begin with.
    torch.set_num_threads(num_threads)
    return pool


if hasattr(os, 'register_at_fork'):
    # A forked process has none of the threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in full float32, however the user has set them."""
    # Any: which settings there are depends on the version of torch.
    backends: list[Any] = [
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, 'matmul', None),
    ]
    if not all(hasattr(backend, 'fp32_precision') for backend in backends):  # torch < 2.9
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('highest')
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
        return
    # The older functions refuse to read what was set by these attributes.
    precisions = [backend.fp32_precision for backend in backends]
    inherited = [b.fp32_precision for b in (torch.backends.cudnn, torch.backends.mkldnn)]
    for backend in backends:
        backend.fp32_precision = 'ieee'
    try:
        yield
    finally:
        for backend, precision, general in zip(backends, precisions, inherited, strict=True):
            # What follows the setting above it goes on following it.
            backend.fp32_precision = 'none' if precision == general else precision
