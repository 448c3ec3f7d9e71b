"""Sharded training on CPU (gloo): the gradient is that of the whole batch there as well."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from mmengine.model.wrappers import MMFullyShardedDataParallel
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from .ranks import Ranks
from .test_training import Images, Segmentor

SPLIT = [3, 9]
WRAPPERS = ['FSDP', 'MMFullyShardedDataParallel']
if hasattr(torch.distributed.fsdp, 'fully_shard'):  # torch >= 2.6
    WRAPPERS.append('fully_shard')


def images() -> tuple[Tensor, Tensor]:
    data = Images()
    return data.inputs[:12], data.target[:12]


def gradients(wrapper: str) -> dict[str, Tensor]:
    """Whole gradients, gathered from the shards, of one step on this rank's part."""
    inputs, target = (values.split(SPLIT)[dist.get_rank()] for values in images())
    model = Segmentor()
    if wrapper == 'fully_shard':
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh('cpu', (dist.get_world_size(),)))
        sum(model(inputs, target).values()).backward()
        return {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    cls = FullyShardedDataParallel if wrapper == 'FSDP' else MMFullyShardedDataParallel
    model = cls(model, device_id=torch.device('cpu'), use_orig_params=True)
    sum(model(inputs, target).values()).backward()
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
        return {name: p.grad.clone() for name, p in model.module.named_parameters()}


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_gradients_of_the_whole_batch(wrapper: str, ranks: Ranks) -> None:
    model = Segmentor()
    sum(model(*images()).values()).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    for found in ranks.run(2, gradients, wrapper):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
