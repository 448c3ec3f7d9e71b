"""Training across ranks with mmengine's runner: 2 or 4 ranks follow one with the whole batch."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size, is_main_process
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import Dataset

from .ranks import WORLD_SIZES, Ranks
from .test_losses import CASES, CLASSES, SYNCED

ITERATIONS = 4
BATCH = 12


class Images(Dataset):
    """16 fixed images of 4 x 4 pixels with all classes, the last class on two of them only."""

    def __init__(self) -> None:
        self.metainfo = dict(classes=('road', 'pole', 'car', 'bike'))
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(16, 2, 4, 4, generator=generator, dtype=torch.float64)
        self.target = torch.randint(0, CLASSES - 1, (16, 4, 4), generator=generator)
        self.target[:2, 1] = CLASSES - 1
        self.target[:, 0] = 255

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.target[index]


class Segmentor(BaseModel):
    """A head for every loss that works across ranks, on one stem; in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 6, 3, padding=1).double()
        self.heads = nn.ModuleList()
        for name in sorted(SYNCED):
            if 'Fused' not in name:
                head = nn.Conv2d(6, CLASSES, 1).double()
                head.loss_decode = CASES[name]()
                self.heads.append(head)

    def forward(self, inputs: Tensor, target: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        features = self.stem(inputs).relu()
        return {
            f'loss_{i}': head.loss_decode(head(features), target)
            for i, head in enumerate(self.heads)
        }


def runner_config(name: str, batch_size: int, accumulative_counts: int) -> dict[str, Any]:
    return dict(
        model=Segmentor(),
        work_dir=name,
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.3), accumulative_counts=accumulative_counts
        ),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        custom_hooks=[dict(type='ClassWeightHook')],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        randomness=dict(seed=0),
        launcher='pytorch',
        log_level='ERROR',
        experiment_name=name,
        default_scope='mmseg',
    )


def train(batch_size: int, accumulative_counts: int = 1) -> dict[str, Any]:
    """The trained state, and what ClassWeightHook has logged (on the main rank)."""
    name = f'{get_world_size()}x{batch_size}, {accumulative_counts} accumulated'
    config = runner_config(name, batch_size, accumulative_counts)
    # As configs/_base_/default_runtime.py has it.
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    runner = Runner(**config, cfg=dict(model_wrapper_cfg=wrapper))
    runner.train()
    logged = []
    if is_main_process():
        (path,) = Path(name).glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        logged = [line for line in lines if any('/weight/' in key for key in line)]
    return dict(state=runner.model.module.state_dict(), logged=logged)


@pytest.fixture(scope='module')
def whole(ranks: Ranks) -> dict[str, Any]:
    return ranks.run(1, train, BATCH)[0]


@pytest.mark.parametrize('world_size', WORLD_SIZES[1:])
def test_ranks_follow_one_process_with_the_whole_batch(
    world_size: int, whole: dict[str, Any], ranks: Ranks
) -> None:
    results = ranks.run(world_size, train, BATCH // world_size)
    for result in results:
        torch.testing.assert_close(result['state'], whole['state'], rtol=1e-9, atol=1e-12)
    logged = results[0]['logged']
    assert len(logged) == len(whole['logged']) == ITERATIONS
    for mine, theirs in zip(logged, whole['logged'], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, nan_ok=True)


def by_hand(micro_batches: int) -> dict[str, Tensor]:
    """The state after plain SGD on the runner's images, each update over several micro batches."""
    model, images = Segmentor(), Images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    order = iter(InfiniteSampler(images, seed=0))
    for iteration in range(ITERATIONS):
        indices = list(islice(order, BATCH // 2))
        losses = model(images.inputs[indices], images.target[indices])
        (sum(losses.values()) / micro_batches).backward()
        if (iteration + 1) % micro_batches == 0:
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()


def test_gradient_accumulation_weighs_each_micro_batch_by_itself(ranks: Ranks) -> None:
    results = ranks.run(2, train, BATCH // 4, 2)
    expected = by_hand(micro_batches=2)
    for result in results:
        torch.testing.assert_close(result['state'], expected, rtol=1e-9, atol=1e-12)


def train_sharded(batch_size: int) -> dict[str, Tensor]:
    # mmengine gives the number of a GPU where device_id is not set.
    wrapper = dict(type='MMFullyShardedDataParallel', device_id=torch.device('cpu'))
    runner = FlexibleRunner(
        **runner_config('sharded', batch_size, accumulative_counts=1),
        strategy=dict(type='FSDPStrategy', model_wrapper=wrapper),
    )
    runner.train()
    with FullyShardedDataParallel.summon_full_params(runner.model):
        state = runner.model.module.state_dict()
        return {name: tensor.clone() for name, tensor in state.items()}


def test_fsdp_strategy_follows_one_process_too(whole: dict[str, Any], ranks: Ranks) -> None:
    for state in ranks.run(2, train_sharded, BATCH // 2):
        kept = {name: state[name] for name in whole['state']}
        assert any('running_recall' in name for name in kept)
        torch.testing.assert_close(kept, dict(whole['state']), rtol=1e-9, atol=1e-12)
