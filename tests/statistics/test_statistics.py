"""Intervals that hold what they promise, on test sets of which the truth is known."""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
import pytest
from scipy import stats

from mmseg_recall.evaluation import Areas
from mmseg_recall.evaluation import areas as A
from mmseg_recall.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    estimate,
    half_width,
    holm,
    outcome,
    p_of_side,
    power,
    resamples,
    what_would_settle,
)

from .simulated import RATIOS, simulated

DRAWN = 400


def miou(areas: Areas) -> np.ndarray:
    return 100 * A.iou(areas).mean(axis=-1)


@cache
def drawn_scenes(scenes: tuple[int, ...]) -> np.ndarray:
    return resamples(scenes)[:DRAWN].astype(float)


def against_first(areas: Areas, scenes: np.ndarray) -> list[Estimate]:
    """The difference of mean IoU of each loss to the first."""
    values = miou(Areas(*(array.sum(axis=2) for array in areas)))
    weights = drawn_scenes(tuple(scenes))
    resampled = miou(Areas(*(np.einsum('bn,lsnc->blsc', weights, a, optimize=True) for a in areas)))
    groups = len(np.unique(scenes))
    return [
        estimate(values[i] - values[0], resampled[:, i] - resampled[:, 0], groups)
        for i in range(1, len(values))
    ]


def test_over_seeds_alone_it_is_the_paired_t_interval() -> None:
    ours, theirs = np.array([50.1, 51.3, 49.8]), np.array([48.0, 50.2, 47.1])
    found = estimate(ours - theirs)
    expected = stats.ttest_rel(ours, theirs)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(LEVEL)))
    assert found.p_value() == pytest.approx(expected.pvalue, abs=1e-6)


def test_over_images_alone_it_is_scipys_bootstrap() -> None:
    generator = np.random.default_rng(0)
    images = generator.exponential(1.0, 400)
    weights = resamples(range(400))
    found = estimate(np.array([images.mean()]), (weights @ images / 400)[:, None], 400)
    expected = stats.bootstrap(
        (images,), np.mean, n_resamples=RESAMPLES, method='percentile', rng=1
    )
    # An end of an interval from 2,000 resamples moves by 0.002 from draw to draw.
    for ours, theirs in zip(found.interval(), expected.confidence_interval, strict=True):
        assert ours == pytest.approx(theirs, abs=4 * 0.002)
    assert max(found.image_errors) == pytest.approx(expected.standard_error, rel=0.1)


def test_frames_of_a_scene_are_drawn_together() -> None:
    drawn = resamples(['a', 'a', 'b', 'c', 'c'])
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 3] == drawn[:, 4]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (drawn == resamples(['a', 'a', 'b', 'c', 'c'])).all()


def test_what_is_the_same_on_all_images_has_no_error_over_images() -> None:
    resampled = np.full((100, 3), 2.0)
    assert estimate(np.array([1.9, 2.0, 2.1]), resampled, 50).image_errors == (0, 0)


@pytest.mark.parametrize(
    'found',
    [Estimate(3.0, seeds=1), estimate(np.array([np.nan, 2.0])), estimate(np.array([np.nan]))],
)
def test_one_value_tells_nothing_from_chance(found: Estimate) -> None:
    assert all(map(math.isnan, (*found.interval(), found.p_value())))
    assert outcome(found, p_of_side(found)) == 'not settled'


def test_one_group_of_images_tells_nothing_of_others() -> None:
    found = estimate(np.array([2.0]), np.full((RESAMPLES, 1), 2.0), 1)
    assert math.isnan(found.p_value())


def test_a_number_without_spread_is_what_it_is() -> None:
    found = estimate(np.array([0.0, 0.0]))
    assert found.p_value() == pytest.approx(1.0)
    assert found.p_value(1.0) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ('mean', 'low', 'high', 'expected'),
    [
        (2.0, 0.0, math.inf, 'supported'),
        (-2.0, 0.0, math.inf, 'contradicted'),
        (0.2, 0.0, math.inf, 'not settled'),
        (-0.2, -1.0, math.inf, 'supported'),
        (-0.9, -1.0, math.inf, 'not settled'),
        (0.1, -1.0, 1.0, 'supported'),
        (0.9, -1.0, 1.0, 'not settled'),
        (3.0, -1.0, 1.0, 'contradicted'),
    ],
)
def test_three_outcomes(mean: float, low: float, high: float, expected: str) -> None:
    found = Estimate(mean, seeds=5, seed_error=0.2)
    assert outcome(found, p_of_side(found, low, high), low, high) == expected


def test_holm_rejects_no_more_than_it_may() -> None:
    adjusted = holm([0.04, math.nan, 0.01, 0.5])
    assert adjusted[::2] == pytest.approx([0.08, 0.03])
    assert math.isnan(adjusted[1]) and adjusted[3] == 0.5


@pytest.mark.parametrize('comparisons', [1, 7])
@pytest.mark.parametrize('images', [(0, 0.0), (20, 0.4)])
def test_as_many_seeds_as_are_named_settle_it(comparisons: int, images: tuple[int, float]) -> None:
    groups, error = images
    found = Estimate(2.0, seeds=3, seed_error=0.8, groups=groups, image_errors=(error, error))
    sentence = what_would_settle(found, comparisons=comparisons)
    seeds = 3 + int(re.fullmatch(r'about (\d+) more seeds? if .*', sentence)[1])
    spread, level = 0.8 * math.sqrt(3), 1 - (1 - LEVEL) / comparisons
    enough, fewer = (power(2.0, spread, n, error, groups, level) for n in (seeds, seeds - 1))
    assert enough >= 0.8 > fewer


def test_what_would_settle_a_difference() -> None:
    assert 'two more seeds' in what_would_settle(Estimate(2.0, seeds=1))
    assert what_would_settle(Estimate(2.0, seeds=2, seed_error=0.5)).startswith('about ')
    assert 'too close' in what_would_settle(Estimate(0.01, seeds=3, seed_error=1.0))
    images = Estimate(2.0, seeds=3, seed_error=0.1, groups=20, image_errors=(2.0, 2.0))
    assert 'times as many test images' in what_would_settle(images)


@pytest.mark.parametrize(
    ('seeds', 'lowest', 'highest'), [(2, 92.4, 97.0), (3, 94.0, 96.2), (5, 94.7, 95.6)]
)
def test_intervals_cover_what_they_say_whatever_the_share_of_the_images(
    seeds: int, lowest: float, highest: float
) -> None:
    middles = [(np.arange(n) + 0.5) / n for n in (200, 10)]
    covered = []
    for groups in (10, 20, 100):
        of_seeds, of_images = np.meshgrid(
            *(
                stats.chi2.ppf(q, n - 1) / (n - 1)
                for q, n in zip(middles, (seeds, groups), strict=True)
            )
        )
        for share in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1):
            by_seeds, by_images = np.sqrt((1 - share) * of_seeds), np.sqrt(share * of_images)
            half = half_width(LEVEL, by_seeds, seeds, by_images, groups)
            covered.append(100 * (1 - 2 * stats.norm.sf(half)).mean())
    assert lowest <= min(covered) and max(covered) <= highest


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [2, 3, 5])
@pytest.mark.parametrize('losses', [5, 15])
def test_equal_losses_are_told_apart_in_5_of_100_families_at_most(losses: int, seeds: int) -> None:
    generator = np.random.default_rng([seeds, losses])
    families = 200
    wrong = {}
    for ratio, scales in RATIOS.items():
        found = (
            against_first(*simulated(generator, losses, seeds, **scales)) for _ in range(families)
        )
        wrong[ratio] = sum(
            any(p < 1 - LEVEL for p in holm([one.p_value() for one in family])) for family in found
        )
    # 5% of 200 families is 10, and no more than 16 in 97.5 of 100 such tests.
    assert max(wrong.values()) <= 16, wrong
    assert sum(wrong.values()) <= 0.05 * families * len(wrong), wrong


@pytest.mark.slow
@pytest.mark.parametrize('seeds', [2, 3, 5])
@pytest.mark.parametrize('ratio', RATIOS)
def test_intervals_of_95_cover_92_to_97_of_100(seeds: int, ratio: str) -> None:
    generator = np.random.default_rng(seeds)
    found = [
        one
        for _ in range(1000)
        for one in against_first(*simulated(generator, 4, seeds, **RATIOS[ratio]))
    ]
    covered = np.mean([low <= 0 <= high for low, high in (one.interval() for one in found)])
    assert 0.92 <= covered <= 0.97, covered


QUIET = {
    'seeds differ by 0.4': {'by_seed': 0.02, 'by_scene': 0.05, 'by_both': 0.05},
    'seeds differ by 0.7': {'by_seed': 0.05, 'by_scene': 0.05, 'by_both': 0.05},
}


@pytest.mark.slow
def test_the_power_of_three_seeds_for_two_points(capsys: pytest.CaptureFixture) -> None:
    lines = []
    for name, scales in {**QUIET, **RATIOS}.items():
        generator = np.random.default_rng(3)
        gains = np.array([0.0, 0.11])
        found = [
            against_first(*simulated(generator, 2, 3, gains=gains, **scales))[0] for _ in range(200)
        ]
        seen = np.mean([one.p_value() < 1 - LEVEL for one in found])
        gain = np.mean([one.mean for one in found])
        spread = math.sqrt(3 * np.mean([one.seed_error**2 for one in found]))
        by_images = np.mean([one.image_errors for one in found])
        expected = power(gain, spread, 3, by_images, 20, LEVEL)
        lines.append(
            f'{seen:.2f} (by formula {expected:.2f}) where the difference of {gain:.1f} has a '
            f'standard deviation of {spread:.1f} over seeds and an error of {by_images:.1f} over '
            f'images: {name}'
        )
        assert 1.8 < gain < 2.2
        assert seen == pytest.approx(expected, abs=0.1)
        if name == 'seeds differ by 0.4':
            assert seen > 0.8
    with capsys.disabled():
        print('\nPower at 3 seeds for 2 points of mean IoU:', *lines, sep='\n')
