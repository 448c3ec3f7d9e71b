"""Accuracy over all and by shot, against a plain count, on one process and on several."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from mmseg_recall.classification.metrics import ShotAccuracy
from mmseg_recall.evaluation import load_areas

COUNTS = [500, 101, 100, 20, 19, 0]
CLASSES = tuple('abcdef')


def outputs(truth: list[int], predicted: list[int]) -> list[dict]:
    """As mmengine hands a model's outputs to a metric."""
    return [
        DataSample().set_gt_label(y).set_pred_label(p).set_pred_score(torch.rand(6)).to_dict()
        for y, p in zip(truth, predicted, strict=True)
    ]


def evaluate(metric: ShotAccuracy, truth: list[int], predicted: list[int]) -> dict[str, float]:
    metric.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(truth), 7):
        metric.process(None, outputs(truth[start : start + 7], predicted[start : start + 7]))
    return metric.evaluate(len(truth))


def test_mean_over_the_classes_of_each_shot() -> None:
    # Found: a 3 of 4, b 0 of 1, c 2 of 2, d 1 of 2, e 0 of 3, f 1 of 1.
    truth = [0] * 4 + [1] + [2] * 2 + [3] * 2 + [4] * 3 + [5]
    predicted = [0, 0, 0, 1, 0, 2, 2, 3, 0, 0, 1, 2, 5]
    metrics = evaluate(
        METRICS.build(dict(type='ShotAccuracy', class_counts=COUNTS)), truth, predicted
    )
    assert metrics == {
        'accuracy/top1': round(100 * 7 / 13, 2),
        'accuracy/many': 37.5,
        'accuracy/medium': 75.0,
        'accuracy/few': 50.0,
    }


def test_on_a_balanced_set_a_shot_is_the_accuracy_over_its_images() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(6), 20)
    predicted = np.where(generator.random(120) < 0.6, truth, generator.integers(6, size=120))
    metrics = evaluate(ShotAccuracy(COUNTS), truth.tolist(), predicted.tolist())
    hit = truth == predicted
    for shot, members in (('many', [0, 1]), ('medium', [2, 3]), ('few', [4, 5])):
        expected = 100 * hit[np.isin(truth, members)].mean()
        assert metrics[f'accuracy/{shot}'] == pytest.approx(expected, abs=0.005)
    assert metrics['accuracy/top1'] == pytest.approx(100 * hit.mean(), abs=0.005)


def test_classes_and_shots_without_test_images_take_no_part() -> None:
    metrics = evaluate(ShotAccuracy(COUNTS), [0, 0, 4], [0, 1, 4])
    assert metrics['accuracy/many'] == 50
    assert metrics['accuracy/few'] == 100
    assert math.isnan(metrics['accuracy/medium'])


def test_thresholds() -> None:
    truth = [0, 1, 2, 3]
    metrics = evaluate(ShotAccuracy(COUNTS, many=50, few=50), truth, [0, 1, 0, 3])
    assert metrics['accuracy/many'] == pytest.approx(66.67)
    assert metrics['accuracy/few'] == 100


def test_areas_hold_what_was_counted(tmp_path: Path) -> None:
    path = tmp_path / 'areas.npz'
    evaluate(ShotAccuracy(COUNTS, areas_file=str(path)), [0, 0, 1, 5], [0, 1, 1, 0])
    areas, classes = load_areas(path)
    assert classes == list(CLASSES)
    assert areas.intersect.tolist() == [[1, 1, 0, 0, 0, 0]]
    assert areas.predicted.tolist() == [[2, 2, 0, 0, 0, 0]]
    assert areas.label.tolist() == [[2, 1, 0, 0, 0, 1]]


def test_ranks_are_summed_and_padding_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of 3 images for a set of 5: the sampler pads, and the last one is no result."""
    ranks = [outputs([0, 2, 4], [0, 2, 0]), outputs([1, 3, 0], [1, 0, 1])]
    metrics = []
    for mine in ranks:
        metric = ShotAccuracy(COUNTS)
        metric.dataset_meta = dict(classes=CLASSES)
        metric.process(None, mine)
        metrics.append(metric)
    # What mmengine's collect_results does: interleave the ranks, and cut to the size of the set.
    together = [r for pair in zip(*(m.results for m in metrics), strict=True) for r in pair][:5]
    monkeypatch.setattr(
        'mmengine.evaluator.metric.collect_results', lambda results, size, *args, **kwargs: together
    )
    alone = evaluate(ShotAccuracy(COUNTS), [0, 1, 2, 3, 4], [0, 1, 2, 0, 0])
    assert metrics[0].evaluate(5) == alone


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(class_counts=COUNTS, many=10, few=20), 'many must be at least few'),
        (dict(class_counts=[1, -2]), 'class 1: -2'),
        (dict(class_counts=[0, 0]), 'all zero'),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShotAccuracy(**options)


def test_counts_of_other_classes_and_missing_counts_are_named() -> None:
    with pytest.raises(ValueError, match='ShotAccuracy has 2 classes, the data set 6'):
        evaluate(ShotAccuracy([1, 2]), [0], [0])
    with pytest.raises(FileNotFoundError, match=r'no/counts\.json does not exist'):
        ShotAccuracy('no/counts.json')
