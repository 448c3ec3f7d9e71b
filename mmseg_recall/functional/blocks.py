"""Working on logits block by block: what a block is, on which thread, and in what memory."""

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
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .checks import compute_dtype

# Elements of the logits in a block. Torch's operations want one on CPU that fits the cache of a
# core; the kernels see to that themselves, and on other devices the launches should not matter.
CPU_BLOCK = 2**18
KERNEL_BLOCK = 2**21
DEVICE_BLOCK = 2**24

Pixels = tuple[int, slice]  # of one image, and which of its pixels
Item = TypeVar('Item')
Result = TypeVar('Result')


def refuse_double_backward() -> None:
    """Raise in a backward that is itself to be differentiated (``create_graph=True``)."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the fused losses can be differentiated once only: use impl='plain', or a loss of "
            'plain torch operations, where you need the gradient of a gradient (create_graph=True)'
        )


def as_rows(logits: Tensor) -> Tensor:
    """(N, C, pixels), a view wherever strides allow; a plain (N, C) is one image of N pixels."""
    return logits.t().unsqueeze(0) if logits.dim() == 2 else logits.flatten(2)


def pixel_rows(image: Tensor | None) -> Tensor | None:
    """The same for a tensor with one number a pixel: (N, pixels)."""
    if image is None:
        return None
    return image.unsqueeze(0) if image.dim() == 1 else image.flatten(1)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    return rows.squeeze(0).t() if like.dim() == 2 else rows.view(like.shape)


def in_huge_pages(fresh: Tensor) -> Tensor:
    """The tensor, which nobody has written to yet, in huge pages where the system has them.

    From 32 MiB on, malloc on Linux maps memory afresh unless it has kept a free piece, and a page
    fault every 4 KiB takes longer than the backward that writes it. A kept piece stays as it is.
    """
    if fresh.device.type == 'cpu' and fresh.nbytes >= 2**25 and hasattr(mmap, 'MADV_HUGEPAGE'):
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


def map_row_blocks(work: Callable[[Pixels, Tensor, Tensor], Result], rows: Tensor) -> list[Result]:
    """``work`` on the pixels of (N, C, pixels), block by block; results in the order of the blocks.

    ``work`` gets the image and the pixels of its block, the logits (C, k) in the computing type,
    and a tensor like them to write to.
    """
    num_images, num_classes, num_pixels = rows.shape
    size = KERNEL_BLOCK if kernels.usable(rows) else block_size(rows.device)
    length = max(min(size // num_classes, num_pixels), 1)
    dtype = compute_dtype(rows)
    # Gathered first where it is not ready to read: another type, or pixels that are not adjacent.
    copies = rows.dtype != dtype or rows.stride(2) != 1

    def start() -> Callable[[Pixels], Result]:
        buffers = torch.empty(1 + copies, num_classes * length, dtype=dtype, device=rows.device)

        def on_block(at: Pixels) -> Result:
            n, pixels = at
            x = rows[n, :, pixels]
            scratch, *copy = (b[: x.numel()].view(x.shape) for b in buffers)
            return work(at, copy[0].copy_(x) if copies else x, scratch)

        return on_block

    starts = range(0, num_pixels, length)
    blocks = [(n, slice(s, min(s + length, num_pixels))) for n in range(num_images) for s in starts]
    return map_on_threads(start, blocks, rows.device)


def resizing_weight(size_in: int, size_out: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """What each output of bilinear resizing takes of each input along an axis: (output, input)."""
    # Resizing the unit vectors gives F.interpolate's own weights.
    unit = torch.eye(size_in, dtype=dtype, device='cpu').unsqueeze(0)
    return F.interpolate(unit, size_out, mode='linear', align_corners=align_corners)[0].t()


def block_size(device: torch.device) -> int:
    return CPU_BLOCK if device.type == 'cpu' else DEVICE_BLOCK


def map_on_threads(
    start: Callable[[], Callable[[Item], Result]], items: list[Item], device: torch.device
) -> list[Result]:
    """The results of the items, in their order; on CPU on as many threads as torch uses.

    Each thread calls ``start`` once, for its own working memory, and what that returns on one item
    after the other. It works on an item alone, so that an item stays in the cache of one core, and
    threads meet once, not at every operation.
    """
    results: list[Any] = [None] * len(items)
    shared = iter(list(enumerate(items)))

    def take() -> None:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            work = start()
            for i, item in shared:
                results[i] = work(item)

    num_threads = min(torch.get_num_threads(), len(items)) if device.type == 'cpu' else 1
    if num_threads == 1:
        take()
    else:
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
    backends = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, 'matmul', None)
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
