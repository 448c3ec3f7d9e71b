"""Average precision by its definition, and offsets that no other offset beats."""

from __future__ import annotations

import numpy as np
import pytest

from mmseg_recall.evaluation import operating_point as P
from mmseg_recall.evaluation.areas import Areas, iou, mean


def pixels(seed: int, n: int = 60, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_classes, n, p=[0.8, 0.15, 0.05])
    logits = generator.normal(size=(n, num_classes)).round(1)  # with ties
    logits[np.arange(n), labels] += 1
    logits[:, 0] += 2
    return logits, labels


def mean_iou(logits: np.ndarray, labels: np.ndarray) -> float:
    prediction, classes = logits.argmax(axis=1), np.unique(labels)
    hits, predicted, label = (
        np.array([(which & (ids == c)).sum() for c in classes])
        for which, ids in [
            (prediction == labels, labels),
            (np.ones(len(labels), bool), prediction),
            (np.ones(len(labels), bool), labels),
        ]
    )
    return mean(iou(Areas(hits, predicted, label)))


@pytest.mark.parametrize('seed', range(5))
def test_average_precision_is_the_mean_precision_at_the_pixels_of_the_class(seed):
    scores, labels = pixels(seed)
    for c, found in enumerate(P.average_precision(scores, labels)):
        s, own = scores[:, c], labels == c
        precisions = [(own & (s >= score)).sum() / (s >= score).sum() for score in s[own]]
        assert found == pytest.approx(np.mean(precisions))


def test_average_precision_of_an_order_that_is_right_wrong_or_not_there():
    scores = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert P.average_precision(scores, np.array([0, 0, 1, 1])).tolist() == [1.0, 0.5]
    assert P.average_precision(scores, np.array([1, 1, 1, 0])).tolist() == [0.25, 0.75]
    assert np.isnan(P.average_precision(scores, np.zeros(4, int))[1])


@pytest.mark.parametrize('seed', range(5))
def test_no_offset_of_one_class_is_better_than_the_fitted(seed):
    logits, labels = pixels(seed)
    offsets = P.fit_offsets(logits, labels, sweeps=1)
    best = mean_iou(logits + offsets, labels)
    assert best >= mean_iou(logits, labels)
    # The last class had its turn last, with the others' final offsets.
    for value in P.OFFSETS:
        changed = offsets.copy()
        changed[-1] = value
        assert mean_iou(logits + changed, labels) <= best + 1e-12


def test_offsets_undo_a_shift_and_leave_alone_what_is_right_or_absent():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    logits = np.zeros((400, 3))
    logits[np.arange(400), labels] = 1.1
    assert P.fit_offsets(logits, labels).tolist() == [0, 0, 0]
    shifted = logits + np.array([0, -3.3, 9])
    offsets = P.fit_offsets(shifted[:, :2], labels)
    assert mean_iou(shifted[:, :2], labels) < 1
    assert mean_iou(shifted[:, :2] + offsets, labels) == 1
