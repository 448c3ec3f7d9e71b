"""Calibration, boundaries and objects against loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_recall.evaluation.boundary import boundary_areas
from mmseg_recall.evaluation.calibration import class_calibration_error
from mmseg_recall.evaluation.objects import found_objects

IGNORE = 255
CLASSES = 3


@st.composite
def maps(draw) -> tuple[np.ndarray, np.ndarray]:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    ids = st.sampled_from([0, 1, IGNORE])  # class 2 has no pixel of the label
    label = draw(st.lists(ids, min_size=height * width, max_size=height * width))
    rest = st.integers(0, CLASSES - 1)
    prediction = draw(st.lists(rest, min_size=height * width, max_size=height * width))
    return tuple(np.array(x).reshape(height, width) for x in (prediction, label))


def masks(values: np.ndarray, label: np.ndarray, c: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in np.ndindex(label.shape)
        if values[i, j] == c and label[i, j] != IGNORE
    }  # fmt: skip


def components(mask: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """By flood fill."""
    left, parts = set(mask), []
    while left:
        part, front = set(), [left.pop()]
        while front:
            i, j = front.pop()
            part.add((i, j))
            near = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)} & left
            left -= near
            front += near
        parts.append(part)
    return parts


@given(maps())
def test_objects_are_found_as_by_flood_fill(case):
    prediction, label = case
    found, objects = found_objects(prediction, label, CLASSES, IGNORE)
    for c in range(CLASSES):
        ours = components(masks(label, label, c))
        theirs = components(masks(prediction, label, c))
        assert objects[c] == len(ours)
        assert found[c] == sum(
            any(2 * len(one & other) >= len(one | other) for other in theirs) for one in ours
        )


@given(maps())
def test_boundaries_are_those_of_distances_between_pixels(case):
    prediction, label = case
    meet, either = boundary_areas(prediction, label, CLASSES, IGNORE)
    width = max(1, round(0.02 * math.hypot(*label.shape)))

    def band(mask):
        steps = range(-width, width + 1)
        return {(i, j) for i, j in mask if any((i + a, j + b) not in mask for a in steps for b in steps)}  # fmt: skip  # noqa: E501

    for c in range(CLASSES):
        one, other = band(masks(prediction, label, c)), band(masks(label, label, c))
        assert (meet[c], either[c]) == (len(one & other), len(one | other))


def test_a_band_follows_the_size_of_the_image():
    label = np.zeros((300, 400), dtype=int)
    meet, _ = boundary_areas(label, label, CLASSES, IGNORE)
    assert meet[0] == 300 * 400 - 280 * 380  # 2% of 500


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_calibration_is_that_of_a_loop_over_bins(seed, n):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.3), size=n)
    labels = rng.integers(0, CLASSES - 1, size=n)
    errors = class_calibration_error(probabilities, labels, bins=5)
    for c in range(CLASSES - 1):
        total = 0.0
        for low in range(5):
            inside = [i for i in range(n) if min(4, int(5 * probabilities[i, c])) == low]
            if inside:
                p = math.fsum(probabilities[i, c] for i in inside) / len(inside)
                total += (
                    len(inside) / n * abs(p - sum(labels[i] == c for i in inside) / len(inside))
                )
        expected = total if (labels == c).any() else math.nan
        assert errors[c] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert math.isnan(errors[CLASSES - 1])


@pytest.mark.parametrize('measure', [boundary_areas, found_objects])
def test_an_image_without_a_label_counts_nothing(measure):
    ignored = np.full((4, 5), IGNORE)
    one, other = measure(np.ones((4, 5), dtype=int), ignored, CLASSES, IGNORE)
    assert one.sum() == other.sum() == 0


def test_a_pixel_in_the_corner_is_an_object():
    label = np.zeros((5, 5), dtype=np.uint8)
    label[0, 4] = 1
    found, objects = found_objects(label, label, CLASSES, IGNORE)
    assert found.tolist() == objects.tolist() == [1, 1, 0]


def test_noise_has_many_objects():
    label = np.zeros((400, 400), dtype=np.uint8)
    label[::2, ::2] = 1
    found, objects = found_objects(label, label, CLASSES, IGNORE)
    assert found.tolist() == objects.tolist() == [1, 200 * 200, 0]


def test_ignored_classes_may_have_ids_of_classes():
    label = np.array([[0, 1], [1, 2]])
    for measure in (boundary_areas, found_objects):
        _, counted = measure(label, label, CLASSES, 1)
        assert counted.tolist() == [1, 0, 1]
