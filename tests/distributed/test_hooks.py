"""Hooks across ranks; what ClassWeightHook logs in training is in test_training.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
from mmseg.registry import HOOKS

from mmseg_recall.datasets.labels import ClassCount, count_classes
from mmseg_recall.hooks import check_dataset as check_dataset_module
from mmseg_recall.hooks.class_weight_hook import class_scalars, focal_class_weight
from mmseg_recall.losses import RecallLoss, SoftmaxFocalLoss
from tests.datasets import test_check_dataset as data_set
from tests.hooks.test_class_weight_hook import CLASSES, logits

from .ranks import WORLD_SIZES, Collectives, Ranks

SPLITS = {1: [8], 2: [2, 6], 4: [1, 2, 1, 4]}


def scalars(sizes: list[int], rank: int) -> dict[str, float]:
    """What the hook logs for two heads."""
    scores, target = (tensor.split(sizes)[rank] for tensor in logits())
    recall_loss, focal_loss = RecallLoss(), SoftmaxFocalLoss()
    recall_loss(scores, target)
    focal = focal_class_weight(focal_loss, scores, target)
    return class_scalars(
        'recall', CLASSES, recall_loss.last_weight, recall_loss.last_counts
    ) | class_scalars('focal', CLASSES, *focal)


def scalars_on_rank(sizes: list[int]) -> dict[str, float]:
    return scalars(sizes, dist.get_rank())


@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_class_weights_are_those_of_the_whole_batch(world_size: int, ranks: Ranks) -> None:
    whole = scalars([8], 0)
    for values in ranks.run(world_size, scalars_on_rank, SPLITS[world_size]):
        assert values == pytest.approx(whole, rel=1e-6, nan_ok=True)


def focal_collectives() -> list[int]:
    with Collectives() as collectives:
        scalars([2, 6], dist.get_rank())
    return collectives.sizes


def test_class_weights_take_one_collective_for_focal_and_none_for_recall(ranks: Ranks) -> None:
    # 3 C for the loss itself, and 4 C (weights and counts) for the implied weight of focal loss.
    for sizes in ranks.run(2, focal_collectives):
        assert sizes == [3 * len(CLASSES), 4 * len(CLASSES)]


def check(folder: Path) -> tuple[int, str]:
    """How often this rank has read the data set, and the error that training begins with."""
    read = []

    def counted(dataset: object, *args: str) -> ClassCount:
        read.append(len(dataset))
        return count_classes(dataset, *args)

    check_dataset_module.count_classes = counted
    try:
        HOOKS.build(dict(type='CheckDatasetHook')).before_train(data_set.runner(folder))
    except ValueError as error:
        return len(read), str(error)
    finally:
        check_dataset_module.count_classes = count_classes
    return len(read), ''


@pytest.mark.parametrize('world_size', WORLD_SIZES)
def test_one_rank_checks_the_files_and_all_hear_of_it(
    world_size: int, ranks: Ranks, tmp_path: Path
) -> None:
    data_set.make(tmp_path)
    others = [(0, '')] * (world_size - 1)
    assert ranks.run(world_size, check, tmp_path) == [(2, ''), *others]
    # What was found right is not read again.
    assert ranks.run(world_size, check, tmp_path) == [(0, ''), *others]
    path = tmp_path / 'data' / 'annotations' / 'val' / data_set.NAME
    data_set.bad_ids(path)
    answers = ranks.run(world_size, check, tmp_path)
    assert [count for count, _ in answers] == [1] + [0] * (world_size - 1)
    assert all(str(path) in error and 'unknown ids [77]' in error for _, error in answers)
