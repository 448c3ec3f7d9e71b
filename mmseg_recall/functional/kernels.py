"""The compiled kernels of kernels.c, and when they can be used.

Installing the package compiles them where there is a C compiler. Without them, and for float64 and
other devices, the same numbers come from torch operations.
"""

from __future__ import annotations

import ctypes
import warnings
import zlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from .checks import compute_dtype

_BLOCK = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
_ARGUMENTS = {
    'nll_forward': [ctypes.c_void_p] * 5,
    'nll_backward': [*[ctypes.c_void_p] * 3, ctypes.c_int64],
    'seesaw_forward': [*[ctypes.c_void_p] * 2, ctypes.c_float, ctypes.c_void_p],
    'seesaw_backward': [
        *[ctypes.c_void_p] * 2,
        ctypes.c_float,
        *[ctypes.c_void_p] * 2,
        ctypes.c_int64,
    ],
    'soft_iou_forward': [ctypes.c_void_p] * 3,
    'soft_iou_backward': [*[ctypes.c_void_p] * 3, ctypes.c_int64],
}


# A subclass may have no memory to read, but an address.
WITH_MEMORY = (Tensor, Parameter)


def _load() -> ctypes.CDLL | None:
    source = Path(__file__).with_suffix('.c')
    built = [source.with_name(f'_kernels{suffix}') for suffix in EXTENSION_SUFFIXES]
    path = next((p for p in built if p.is_file()), None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        checksum = library.source_checksum()
    except (OSError, AttributeError) as error:  # built for another system, or damaged
        return _leave_alone(f'{path} cannot be loaded ({error})')
    # In a checkout the source may be newer, and its functions may take other arguments.
    if checksum != ctypes.c_int32(zlib.crc32(source.read_bytes())).value:
        return _leave_alone(f'{path} is not of the present kernels.c')
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = _BLOCK + arguments, ctypes.c_int64
    return library


def _leave_alone(reason: str) -> None:
    warnings.warn(
        f'{reason} and is left alone, which makes the losses slower: install mmseg_recall again',
        stacklevel=3,
    )


LIBRARY = _load()


def usable(logits: Tensor) -> bool:
    """Whether the kernels compute the loss of these logits: on CPU, in float32, not compiling."""
    return (
        LIBRARY is not None
        and type(logits) in WITH_MEMORY
        and logits.device.type == 'cpu'
        and compute_dtype(logits) == torch.float32
        and not torch.compiler.is_compiling()
    )


def run(name: str, x: Tensor, target: Tensor, ignore_index: int | None, *arguments: object) -> int:
    """Call a kernel on a block: x (C, pixels), target (pixels,), both of adjacent pixels.

    ctypes releases the interpreter lock, so that blocks run on all threads.
    """
    status = getattr(LIBRARY, name)(
        _address(x),
        x.stride(0),
        *x.shape,
        _address(target),
        ignore_index is not None,
        ignore_index or 0,
        *[_address(a) if isinstance(a, Tensor) else a for a in arguments],
    )
    if status < 0:
        raise MemoryError(f'no memory for a strip of {len(x)} classes')
    return status


def _address(tensor: Tensor) -> int:
    # Whatever the callers have missed: reading it would end the process.
    if tensor.device.type != 'cpu' or type(tensor) not in WITH_MEMORY:
        raise RuntimeError(
            f'the logits are in main memory, and a {type(tensor).__name__} that goes with them '
            f'(target, or weight per pixel), {tuple(tensor.shape)} on {tensor.device}, is not: '
            'give all of them as ordinary tensors on CPU'
        )
    return tensor.data_ptr()


def run_into(out: Tensor, scratch: Tensor, name: str, x: Tensor, *arguments: object) -> None:
    """Call a backward kernel, which writes like x, for ``out`` of any type and strides."""
    direct = out.dtype == x.dtype and out.stride(1) == 1
    grad = out if direct else scratch
    run(name, x, *arguments, grad, grad.stride(0))
    if not direct:
        out.copy_(grad)
