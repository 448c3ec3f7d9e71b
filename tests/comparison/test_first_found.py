"""Hits of a batch against a loop over its pixels, and the iterations that they give."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmseg_recall.comparison.first_found import CHECKS, first_found, hits

CLASSES, IGNORE = 3, 255


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_hits_are_those_of_a_loop_over_pixels(seed, images, size, stride):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, size, size, generator=generator)
    ids = torch.tensor([0, 1, 2, CLASSES, IGNORE])
    shape = (images, 1, stride * size, stride * size)
    label = ids[torch.randint(len(ids), shape, generator=generator)].to(torch.uint8)
    right, known = [0] * CLASSES, [0] * CLASSES
    for n in range(images):
        for i in range(size):
            for j in range(size):
                c = int(label[n, 0, stride * i, stride * j])
                if c < CLASSES:
                    known[c] += 1
                    right[c] += (
                        logits[n, :, i, j].tolist().index(max(logits[n, :, i, j].tolist())) == c
                    )
    assert hits(logits, label, IGNORE).tolist() == [right, known]


def test_what_is_ignored_may_have_the_id_of_a_class():
    label = torch.tensor([[[[0, 1]]]])
    assert hits(torch.zeros(1, 2, 1, 2), label, ignore_index=0).tolist() == [[0, 0], [0, 1]]


def test_a_batch_without_a_label_has_no_hit():
    label = torch.full((2, 1, 8, 8), IGNORE, dtype=torch.uint8)
    assert hits(torch.zeros(2, CLASSES, 2, 2), label, IGNORE).tolist() == [[0] * 3, [0] * 3]


def counts(*columns: list[tuple[int, int]]) -> torch.Tensor:
    """(right, all) of each check, for each class."""
    return torch.tensor(columns).permute(1, 2, 0)


@pytest.mark.parametrize(
    ('column', 'expected'),
    [
        ([(1, 10)] * CHECKS, 3),
        ([(0, 10)] * 9 + [(1, 10)], 23),
        ([(0, 10)] * 4 + [(1, 10), (0, 10)] * 3, 12),
        ([(5, 100)] * CHECKS, math.nan),
        ([(0, 0)] * CHECKS, math.nan),
    ],
    ids=['at once', 'at the end', 'and lost again', 'at chance', 'without a pixel'],
)
def test_a_class_is_found_by_the_first_check_that_sees_more_than_a_few(column, expected):
    (found,) = first_found(counts(column), iterations=23)
    assert found == pytest.approx(expected, nan_ok=True)


def test_fewer_iterations_than_checks_leave_some_checks_empty():
    seen = [(0, 0)] * CHECKS
    seen[6] = (4, 4)  # of the last of three iterations
    assert first_found(counts(seen), iterations=3) == [3.0]
