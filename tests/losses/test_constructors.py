"""Constructor checks of the other losses, and the class counts that some need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_recall.losses import (
    ClassBalancedLoss,
    InverseFrequencyLoss,
    MetricWeightedLoss,
    OHEMLoss,
    SoftIoULoss,
    SoftmaxFocalLoss,
    available_losses,
)
from mmseg_recall.losses.base import RegionLoss
from mmseg_recall.losses.logit_adjusted import LogitAdjustedLoss
from mmseg_recall.losses.seesaw import SeesawLoss
from mmseg_recall.losses.soft_tversky import SoftTverskyLoss

STATISTICS_BALANCED = pytest.mark.parametrize('cls', [InverseFrequencyLoss, ClassBalancedLoss])


@pytest.mark.parametrize(
    ('cls', 'options', 'message'),
    [
        (SoftmaxFocalLoss, dict(gamma=-0.5), 'gamma'),
        (SoftmaxFocalLoss, dict(gamma=float('nan')), 'gamma'),
        (OHEMLoss, dict(ratio=0.0), 'ratio'),
        (OHEMLoss, dict(ratio=1.1), 'ratio'),
        (MetricWeightedLoss, dict(metric='accuracy'), 'precision'),
        (MetricWeightedLoss, dict(metric='tversky', alpha=-1.0), 'alpha'),
        (InverseFrequencyLoss, dict(class_counts=[1], mode='mean'), 'median'),
        (ClassBalancedLoss, dict(class_counts=[1], beta=1.0), 'beta'),
        (InverseFrequencyLoss, {}, 'class_statistics.py CONFIG'),
        (InverseFrequencyLoss, dict(class_counts=[1], exponent=1.5), r'exponent .*\[0, 1\]'),
        (ClassBalancedLoss, dict(class_counts=[1], exponent=-0.1), r'exponent .*\[0, 1\]'),
        (ClassBalancedLoss, dict(class_counts=[1], exponent=float('nan')), 'exponent'),
        (SeesawLoss, dict(p=-1.0), 'p must'),
        (SeesawLoss, dict(q=float('nan')), 'q must'),
        (SoftTverskyLoss, dict(alpha=-0.1), 'alpha'),
        (SoftTverskyLoss, dict(beta=0.0), 'beta'),
        (SoftTverskyLoss, dict(gamma=0.0), 'gamma'),
        (SoftIoULoss, dict(average='mean'), "average must be .*'class'.*'mean'"),
        (LogitAdjustedLoss, {}, 'class_statistics.py CONFIG'),
        (LogitAdjustedLoss, dict(class_counts=[1], tau=-1.0), 'tau'),
        (LogitAdjustedLoss, dict(class_counts=[1, 0, 2, 0]), '0 for the classes 1, 3'),
        (LogitAdjustedLoss, dict(class_counts=[1, 2], num_classes=3), '2 classes, .* is 3'),
    ],
)
def test_bad_options_are_refused(cls: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**options)


@STATISTICS_BALANCED
@pytest.mark.parametrize(
    ('counts', 'message'),
    [
        ([], 'all zero'),
        ([0, 0], 'all zero'),
        ([3, -1], 'class 1: -1'),
        ([3, float('nan')], 'class 1: nan'),
        ([float('inf'), 1], 'class 0: inf'),
        ([[1, 2], [3, 4]], 'one a class'),
        ([1, 'x'], 'one a class'),
        (5, 'one a class'),
    ],
)
def test_bad_counts_are_refused(cls: type, counts: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        cls(class_counts=counts)
    if isinstance(counts, list):
        path = tmp_path / 'class_counts.json'
        path.write_text(json.dumps(dict(pixels=counts)))
        with pytest.raises(ValueError, match=f'class_counts.json.*({message})'):
            cls(class_counts=path)


@pytest.mark.parametrize('cls', [InverseFrequencyLoss, ClassBalancedLoss, LogitAdjustedLoss])
def test_counts_for_other_classes_name_both(cls: type) -> None:
    loss = cls(class_counts=[1, 2, 3])
    with pytest.raises(ValueError, match='3 classes, the logits have 4'):
        loss(torch.zeros(1, 4, 2), torch.zeros(1, 2).long())
    with pytest.raises(ValueError, match='3 classes, num_classes is 4'):
        cls(class_counts=[1, 2, 3], num_classes=4)
    assert cls(class_counts=[1, 2, 3], num_classes=3).class_counts.tolist() == [1, 2, 3]


@STATISTICS_BALANCED
def test_counts_from_a_file_are_those_of_the_list(cls: type, tmp_path: Path) -> None:
    path = tmp_path / 'class_counts.json'
    path.write_text(json.dumps(dict(classes=['a', 'b', 'c'], pixels=[7, 0, 2])))
    assert torch.equal(cls(class_counts=str(path)).weight, cls(class_counts=[7, 0, 2]).weight)


@pytest.mark.parametrize(
    'convert', [torch.tensor, np.array, tuple], ids=['tensor', 'array', 'tuple']
)
def test_counts_may_be_a_tensor_or_an_array(convert) -> None:
    counts = InverseFrequencyLoss(convert([6, 2])).class_counts
    assert torch.equal(counts, torch.tensor([6.0, 2.0], dtype=torch.float64))


@STATISTICS_BALANCED
def test_exponent_goes_from_cross_entropy_to_the_weights(cls: type) -> None:
    weight = cls(class_counts=[7, 0, 2]).weight
    assert cls(class_counts=[7, 0, 2], exponent=0).weight.tolist() == [1, 0, 1]
    torch.testing.assert_close(cls(class_counts=[7, 0, 2], exponent=0.5).weight, weight.sqrt())


def test_counts_of_other_classes_name_both(tmp_path: Path) -> None:
    path = tmp_path / 'class_counts.json'
    path.write_text(json.dumps(dict(classes=['road', 'sky'], pixels=[7, 2])))
    loss = InverseFrequencyLoss(class_counts=path)
    loss.check_names(('road', 'sky'))
    with pytest.raises(ValueError, match=r"class_counts.json.* class 1 is 'sky' .* 'pole' in"):
        loss.check_names(('road', 'pole', 'sky'))
    with pytest.raises(ValueError, match="class 1 is 'sky' there and None"):
        loss.check_names(('road',))
    InverseFrequencyLoss(class_counts=[7, 2]).check_names(('sky', 'road'))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'not json', 'is not JSON'),
        (b'\xff\xfe\x00', 'is not JSON'),
        (b'"1, 2"', '"pixels"'),
        (b'{"pixels": 3}', 'one a class'),
        (b'{"classes": ["a"], "pixels": [1, 2]}', 'names 1 classes but counts 2'),
    ],
)
def test_bad_counts_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'class_counts.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        InverseFrequencyLoss(class_counts=path)
    assert str(path) in str(error.value)


def test_a_missing_counts_file_prints_the_command(tmp_path: Path) -> None:
    path = tmp_path / 'class_counts.json'
    with pytest.raises(FileNotFoundError, match=r'python tools/class_statistics\.py CONFIG') as e:
        InverseFrequencyLoss(class_counts=path)
    assert str(path) in str(e.value)


def test_a_class_never_seen_weighs_nothing() -> None:
    logits = torch.randn(1, 3, 8)
    target = torch.full((1, 8), 2)
    for cls in (InverseFrequencyLoss, ClassBalancedLoss):
        assert cls(class_counts=[5, 3, 0])(logits, target) == 0


@pytest.mark.parametrize(
    'cls', [cls for cls in available_losses().values() if issubclass(cls, RegionLoss)]
)
def test_region_losses_refuse_a_weight_per_pixel(cls: type) -> None:
    with pytest.raises(ValueError, match='sampler'):
        cls()(torch.zeros(1, 2, 3), torch.zeros(1, 3).long(), weight=torch.ones(1, 3))


def test_tversky_of_one_and_one_is_the_soft_iou() -> None:
    logits, target = torch.randn(2, 4, 9), torch.randint(3, (2, 9))
    expected = SoftIoULoss()(logits, target)
    torch.testing.assert_close(SoftTverskyLoss(alpha=1, beta=1)(logits, target), expected)
