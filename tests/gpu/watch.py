"""What a step does on a GPU: launches, bytes, waits of the host, operands on several devices."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Those that only make a tensor.
NO_KERNEL = {
    *('empty', 'empty_strided', 'empty_like', 'new_empty', 'new_empty_strided', 'resize_'),
    *('detach', 'alias', '_unsafe_view', 'lift_fresh', 'is_same_size', 'resolve_conj', 'set_'),
}
# Those whose result, or its size, the host reads.
WAITS = {
    *('_local_scalar_dense', 'item', 'is_nonzero', 'equal', 'nonzero', 'masked_select'),
    *('_unique2', 'unique_dim', 'unique_consecutive', 'bincount'),
}
# Those that write to their first argument, or from its shape, and do not read it.
WRITES = {
    *('copy_', 'fill_', 'zero_', 'new_zeros', 'new_full', 'new_ones'),
    *('zeros_like', 'ones_like', 'full_like', 'rand_like'),
}
# Bytes of an element to sort: several passes of a radix sort.
SORTED = 100


class Watch(TorchDispatchMode):
    """Inside, everything on a device that is not the CPU is counted.

    Attributes:
        launches: Kernels, not views.
        bytes: Read and written, if nothing stays in the cache.
        waits: Operations at which the host waits for the device.
        mixed: Operations with tensors of several devices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0
        self.waits: list[str] = []
        self.mixed: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = [x for x in given if x.device.type != 'cpu']
        copies = name in ('_to_copy', 'copy_', '_copy_from')
        if on_device and not copies:
            # A scalar in main memory is an argument of the kernel.
            places = {x.device for x in given if x.dim() or x.device.type != 'cpu'}
            if len(places) > 1:
                self.mixed.append(f'{name} {_where()}')
        sizes_unknown = name == 'repeat_interleave' and kwargs.get('output_size') is None
        if on_device and (name in WAITS or sizes_unknown or _reads_a_mask(name, args)):
            self.waits.append(f'{name} {_where()}')
        out = function(*args, **kwargs)
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if copies:
            source = args[0] if name == '_to_copy' else args[1]
            crosses = source.device.type != made[0].device.type
            if crosses and not (kwargs.get('non_blocking') or True in args[2:]):
                self.waits.append(f'{name} {_where()}')
        on_device = [x for x in given + made if x.device.type != 'cpu']
        if on_device and not function.is_view and name not in NO_KERNEL:
            self.launches += 1
            self.bytes += _bytes(name, given, made)
        return out


def _reads_a_mask(name: str, args: tuple) -> bool:
    if name not in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
        return False
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _bytes(name: str, given: list[Tensor], made: list[Tensor]) -> int:
    read = [] if name in WRITES - {'copy_'} else given[name == 'copy_' :]
    if name in ('gather', 'index_select'):
        read = [given[1], made[0]]  # of the source only what is taken
    elif name in ('scatter_add_', 'index_add_', 'scatter_'):
        return sum(map(_size, given[1:])) + 2 * _size(given[-1])
    elif name == 'nll_loss2d_forward':
        read = [given[1], given[1]]
    elif name == 'nll_loss2d_backward':
        read = [given[2], given[2]]
    elif name in ('sort', 'argsort'):
        return SORTED * given[0].numel()
    return sum(map(_size, read)) + sum(map(_size, made))


def _size(tensor: Tensor) -> int:
    """Of an expanded tensor what there is."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _where() -> str:
    frames = [f for f in traceback.extract_stack() if 'mmseg' in f.filename]
    return f'at {frames[-1].filename}:{frames[-1].lineno}' if frames else 'in autograd'
