"""Sums over the ranks of a distributed training, by torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks(sync: bool = True) -> int:
    """W, the processes that share a batch; 1 where ``sync`` is False or no group is initialised."""
    return dist.get_world_size() if sync and dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor, sync: bool = True) -> tuple[Tensor, int]:
    """(the sum over the ranks, W); (values, 1) where this process is on its own.

    Args:
        values: Of the same shape and type on every rank; a constant for the gradient.
        sync: False keeps each rank on its own.

    Example:
        >>> import torch
        >>> sum_over_ranks(torch.tensor([2, 1]))
        (tensor([2, 1]), 1)
    """
    if num_ranks(sync) == 1:
        return values, 1
    total = values.detach().clone()
    dist.all_reduce(total)
    return total, num_ranks()


def differentiable_sum_over_ranks(values: Tensor, sync: bool = True) -> Tensor:
    """The same, with W times the gradient of this rank's share: DDP's average then sums it."""
    return values if num_ranks(sync) == 1 else _SumOverRanks.apply(values)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * num_ranks()
