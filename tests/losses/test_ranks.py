"""Across ranks: the averaged gradient is that of the whole batch on one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmseg_recall.losses import available_losses
from mmseg_recall.losses.performance_balanced import RecallLoss
from tests.losses.test_properties import build

WORLD_SIZE = 2
# Losses that rank pixels rank those of their own process.
SYNCED = [name for name, cls in available_losses().items() if hasattr(build(name, 4), 'sync_stats')]


def whole_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (4, 5, 6), generator=generator)
    target[0] = 3  # class 3 is on the first image only
    target[3] = 255  # the last image has no valid pixel
    return logits, target


SPLITS = {'even': [2, 2], 'uneven': [1, 3], 'one rank all ignored': [3, 1]}


def losses() -> dict[str, torch.nn.Module]:
    return {
        **{name: build(name, 4) for name in SYNCED},
        'RecallLoss(weights)': RecallLoss(normalization='weights'),
        'RecallLoss(momentum)': RecallLoss(momentum=0.5),
    }


def run_rank(rank: int, folder: str) -> None:
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=WORLD_SIZE
    )
    logits, target = whole_batch()
    results = {}
    for split, sizes in SPLITS.items():
        for name, loss in losses().items():
            mine = logits.split(sizes)[rank].clone().requires_grad_()
            value = loss(mine, target.split(sizes)[rank])
            value.backward()
            state = {k: v.clone() for k, v in loss.state_dict().items()}
            results[split, name] = (value.detach(), mine.grad, state)
    torch.save(results, f'{folder}/rank{rank}.pt')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp('ranks')
    mp.spawn(run_rank, (str(folder),), nprocs=WORLD_SIZE)
    return [torch.load(folder / f'rank{r}.pt') for r in range(WORLD_SIZE)]


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('name', losses())
def test_average_over_ranks_is_the_whole_batch(split: str, name: str, ranks: list[dict]) -> None:
    logits, target = whole_batch()
    whole = losses()[name]
    value = whole(logits.requires_grad_(), target)
    value.backward()
    values, gradients, states = zip(*(r[split, name] for r in ranks), strict=True)
    torch.testing.assert_close(torch.stack(values).mean(), value.detach())
    # DDP averages the gradients of the ranks.
    torch.testing.assert_close(torch.cat(gradients) / WORLD_SIZE, logits.grad)
    for state in states:
        torch.testing.assert_close(state, dict(whole.state_dict()), equal_nan=True)
