"""The compiled functions of cpu_kernels.c.

Installing the package compiles them where there is a C compiler. Without them, and for float64,
the plain engine takes their place.
"""

from __future__ import annotations

import ctypes
import math
import warnings
import zlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_WRITTEN = [_POINTER, _INTEGER, _INTEGER]  # the gradient and its strides
_ARGUMENTS: dict[str, list[Any]] = {
    'nll_forward': [_POINTER] * 4,
    'nll_backward': [*[_POINTER] * 3, *_WRITTEN],
    'adjusted_nll_forward': [_POINTER, _POINTER, _INTEGER, ctypes.c_float, _POINTER, _POINTER],
    'adjusted_nll_backward': [
        *(_POINTER, _POINTER, _INTEGER, ctypes.c_float, _POINTER),
        *_WRITTEN,
    ],
    'soft_counts_forward': [_INTEGER, *[_POINTER] * 3],
    'soft_counts_backward': [_INTEGER, _POINTER, _POINTER, *_WRITTEN],
    'lovasz_forward': [*[_POINTER] * 4, _INTEGER, _POINTER],
    'lovasz_backward': [*[_POINTER] * 4, _INTEGER, _POINTER, _INTEGER, _POINTER, *_WRITTEN],
}
_TABLE_ARGUMENTS: dict[str, list[Any]] = {
    'lovasz_lay_bins': [_INTEGER, _INTEGER, *[_POINTER] * 5],
    'lovasz_score_bins': [_INTEGER, _INTEGER, *[_POINTER] * 6, _INTEGER, _POINTER],
    'lovasz_rank': [_INTEGER, _INTEGER, *[_POINTER] * 4, _INTEGER],
}
"""Of the functions that work on tables instead of a block."""


class Block(ctypes.Structure):
    """The Block of cpu_kernels.c."""

    _fields_ = (
        ('x', _POINTER),
        *[
            (name, _INTEGER)
            for name in ('image_stride', 'class_stride', 'num_images', 'num_classes', 'num_pixels')
        ],
        ('target', _POINTER),
        *[(name, _INTEGER) for name in ('row', 'has_ignore', 'ignore_index')],
    )


# A subclass may have no memory to read, but an address.
WITH_MEMORY = (Tensor, Parameter)


def _load() -> ctypes.CDLL | None:
    source = Path(__file__).with_name('cpu_kernels.c')
    built = [source.with_name(f'_cpu_kernels{suffix}') for suffix in reversed(EXTENSION_SUFFIXES)]
    path = next((p for p in built if p.is_file()), None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        checksum = library.source_checksum()
    except (OSError, AttributeError) as error:  # built for another system, or damaged
        _warn(f'{path} cannot be loaded ({error})')
        return None
    # In a checkout the source may be newer, and its functions may take other arguments.
    if checksum != ctypes.c_int32(zlib.crc32(source.read_bytes())).value:
        _warn(f'{path} is not of the present {source.name}')
        return None
    of_block = {name: [ctypes.POINTER(Block), *rest] for name, rest in _ARGUMENTS.items()}
    for name, arguments in (of_block | _TABLE_ARGUMENTS).items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int64
    library.weighted_mean.argtypes = [_INTEGER, _INTEGER, *[_POINTER] * 5]
    library.weighted_mean.restype = None
    return library


def _warn(reason: str) -> None:
    warnings.warn(
        f'{reason} and is left alone, which makes the losses slower: install mmseg_recall again',
        stacklevel=3,
    )


LIBRARY = _load()


def usable(logits: Tensor) -> bool:
    """Whether the library computes the loss of these logits: on CPU, in float32."""
    return (
        LIBRARY is not None
        and logits.device.type == 'cpu'
        and type(logits) in WITH_MEMORY
        and logits.dtype != torch.float64
    )


def run(
    name: str,
    x: Tensor,
    target: Tensor,
    ignore_index: int | None,
    *arguments: Tensor | float | None,
) -> int:
    """Call a function on a block: x (n, C, ...) and target (n, ...), each of adjacent pixels.

    ctypes releases the interpreter lock, so that blocks run on all threads.

    Returns:
        How many labels mean nothing; 0 of a backward.
    """
    given: list[Any] = [x, target, *arguments]
    for i, tensor in enumerate(given):
        if isinstance(tensor, Tensor):
            # Whatever the callers have missed: reading it would end the process.
            if type(tensor) not in WITH_MEMORY or not tensor.is_cpu:
                raise RuntimeError(
                    f'the logits are in main memory, and a {type(tensor).__name__} that goes with '
                    f'them (target, or weight per pixel), {tuple(tensor.shape)} on '
                    f'{tensor.device}, is not: give all of them as ordinary tensors on CPU'
                )
            given[i] = tensor.data_ptr()
    n, num_classes, *size = x.shape
    image_stride, class_stride, *_ = x.stride()
    num_pixels, row = math.prod(size), target.stride(0)
    ignore = ignore_index is not None, ignore_index or 0
    block = Block(
        given[0], image_stride, class_stride, n, num_classes, num_pixels, given[1], row, *ignore
    )
    status: int = getattr(LIBRARY, name)(block, *given[2:])
    if status < 0:
        raise MemoryError(f'no memory for a strip of {num_classes} classes')
    return status


def run_on_tables(name: str, *arguments: Tensor | int) -> int:
    """Call a function that needs no block; its tensors are on CPU, laid out as it wants them."""
    given = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    result: int = getattr(LIBRARY, name)(*given)
    if result < 0:
        raise MemoryError(f'no memory for the bins of {given[0]} classes')
    return result


def weighted_mean(
    sums: Tensor, weight: Tensor, pixels: Tensor, by_weights: bool
) -> tuple[Tensor, Tensor]:
    """(the weighted mean, what it multiplies the sums with): ``weighted_mean`` in one call.

    Args:
        sums: (C,), float64.
        weight: (C,), or what broadcasts to it.
        pixels: (C,), int64.
        by_weights: Whether to divide by the sum of the weights, or of the pixels.
    """
    assert LIBRARY is not None
    wide = weight.dtype == torch.float64 and weight.is_cpu
    if not (wide and weight.shape == sums.shape and weight.is_contiguous()):
        weight = weight.to('cpu', torch.float64).expand_as(sums).contiguous()
    mean = sums.new_empty((), dtype=torch.float32)
    factor = torch.empty_like(sums, dtype=torch.float32)
    given, written = (sums.data_ptr(), weight.data_ptr(), pixels.data_ptr()), factor.data_ptr()
    LIBRARY.weighted_mean(sums.shape[0], by_weights, *given, written, mean.data_ptr())
    return mean, factor
