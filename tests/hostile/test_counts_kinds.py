"""Rows N1, N2 and N5 of class counts: what is taken, and what is refused by name."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import HOOKS
from torch import nn

from mmseg_recall.comparison.record import training_pixels
from mmseg_recall.evaluation import PerClassIoUMetric
from mmseg_recall.losses import ClassBalancedLoss, InverseFrequencyLoss, LogitAdjustedLoss
from mmseg_recall.losses.class_counts import load_class_counts, load_class_names

PIXELS = [7, 0, 2]
LABEL = np.repeat([0, 2], [7, 2])
TAKEN = {
    'list of bincount': list(np.bincount(LABEL)),
    'bincount': np.bincount(LABEL),
    'list of a tensor': list(torch.tensor(PIXELS)),
    'tensor': torch.tensor(PIXELS, dtype=torch.float16),
    'tuple': tuple(PIXELS),
    'array of the standard library': array('q', PIXELS),
    'whole floats': [7.0, 0.0, np.float32(2)],
    'a generator': (n for n in PIXELS),
    'dict of names': dict(road=7, pole=0, sky=2),
    'dict of tensors': dict(road=torch.tensor(7), pole=torch.tensor(0), sky=np.int64(2)),
    'counter': Counter(road=7, pole=0, sky=2),
    'values of a dict': dict(road=7, pole=0, sky=2).values(),
}
REFUSED = {
    'shares': [0.1101, 0.8839, 0.0060],
    'per cent': [11.01, 88.39, 0.60],
    'per cent, none below 1': [10.5, 80.25, 9.25],
    'shares in thousandths': [110.1, 883.9, 6.0],
    'shares of a tensor': torch.tensor([0.5, 0.25, 0.25]),
    'shares by name': dict(road=0.5, sky=0.5),
    'weights': [0.33, 0.04, 6.13],
    'a mean of an image': [15_000.4, 3.2],
}


@pytest.mark.parametrize('kind', TAKEN)
def test_counts_are_taken_where_the_meaning_is_plain(kind: str) -> None:
    assert load_class_counts(TAKEN[kind]).tolist() == PIXELS


@pytest.mark.parametrize('content', [PIXELS, dict(road=7, pole=0, sky=2), dict(pixels=PIXELS)])
def test_a_json_file_may_hold_each_of_them(tmp_path: Path, content: object) -> None:
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(content))
    assert load_class_counts(path).tolist() == PIXELS
    names = ['road', 'pole', 'sky'] if 'road' in content else None
    assert load_class_names(path) == names


@pytest.mark.parametrize('kind', REFUSED)
@pytest.mark.parametrize('loss', [InverseFrequencyLoss, ClassBalancedLoss, LogitAdjustedLoss])
def test_shares_are_refused_in_words_of_pixels(kind: str, loss: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match='whole numbers of pixels, not shares or per cent'):
        loss(class_counts=REFUSED[kind])


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['road', 'sky', 'pole'], pixels=[7, 2, 1])))
    return path


CLASSES = ('road', 'pole', 'sky')
ELSEWHERE = r"of another dataset: class 1 is 'sky' there and 'pole' in the dataset"


def of_a_loss(counts: Path) -> None:
    InverseFrequencyLoss(class_counts=counts).check_names(CLASSES)


def of_a_loss_by_name(counts: Path) -> None:
    InverseFrequencyLoss(class_counts=dict(road=7, sky=2, pole=1)).check_names(CLASSES)


def of_the_metric(counts: Path) -> None:
    metric = PerClassIoUMetric(class_counts=str(counts))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [])


def of_a_record(counts: Path) -> None:
    training_pixels(Config(dict(class_counts=str(counts))), 3, list(CLASSES))


def of_a_training_with_cross_entropy(counts: Path) -> None:
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES))
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    cfg = Config(dict(class_counts=str(counts)))
    hook = HOOKS.build(dict(type='CheckDatasetHook', _scope_='mmseg'))
    hook.before_train(
        SimpleNamespace(train_loop=loop, val_loop=None, model=nn.Module(), cfg=cfg, work_dir='.')
    )


@pytest.mark.parametrize(
    'read',
    [of_a_loss, of_a_loss_by_name, of_the_metric, of_a_record, of_a_training_with_cross_entropy],
)
def test_names_are_compared_wherever_counts_are_read(read, counts: Path) -> None:
    with pytest.raises(ValueError, match=ELSEWHERE):
        read(counts)
