"""How sure is a mean over seeds, or a difference of two? Intervals, p-values, three outcomes.

A number that a test gives has two sources of chance: the seed of the training, and which images the
test set happens to hold. Let d_s be a metric of seed s (or its difference between two losses that
share the seed), S their number and d their mean. All seeds are tested on the same images, so what
the images add is common to all d_s and not in their spread: the two parts are independent, and

    v_seeds = sd(d_s)^2 / S        v_images = what the seeds have in common over resamples of images
    interval = d -+ t_f sqrt(v_seeds + v_images)
    f = (k v_seeds + v_images)^2 / ((k v_seeds)^2 / (S - 1) + v_images^2 / (G - 1))

v_images is of a bootstrap over G groups of images (the same resamples for all seeds and losses),
from its percentiles, so that it may differ between the two sides. What each seed adds over the
images is in v_seeds already and is not counted again.

With k = 1, f are the degrees of freedom of Welch and Satterthwaite. Few seeds often agree by
chance; then f would be that of the images, and intervals of 95% from two seeds cover 87 of 100
where the seeds matter most. So f (and f alone) takes the seeds' variance at the end that it exceeds
in q of 100 cases only: k = (S - 1) / chi2_{S-1}(q), with q = min(1/2, 7 (1 - level)). Over all
ratios of v_seeds to v_images, and with 10 groups of images or more, intervals of 95% then cover
92.5 to 97 of 100 at two seeds, 94 to 96 at three and 95 at five, and of 5 to 15 equal losses at
most 5 families in 100 name one. Of seeds or images alone it is Student's interval.

Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components"; the
bound on the seeds' variance is this project's, and ``tests/statistics`` measures it. Holm 1979, "A
simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, stdtrit

LEVEL = 0.95
CAUTION = 7
RESAMPLES = 2000
POWER = 0.8
MAX_SEEDS = 30
MAX_TIMES = 64
SUPPORTED, CONTRADICTED, NOT_SETTLED = 'supported', 'contradicted', 'not settled'


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and how far chance may have moved it.

    Attributes:
        mean: Over the seeds.
        seeds: Their number; 1 says nothing of other seeds.
        seed_error: Standard error over seeds; 0 for one.
        groups: Of images; 0 where only totals are known, which say nothing of other images.
        image_errors: Standard errors over images, downwards and upwards.
    """

    mean: float
    seeds: int
    seed_error: float = 0.0
    groups: int = 0
    image_errors: tuple[float, float] = (0.0, 0.0)

    def interval(self) -> tuple[float, float]:
        """Lower and upper end; both NaN where neither seeds nor images say anything.

        Example:
            >>> low, high = Estimate(2.0, seeds=3, seed_error=0.5).interval()
            >>> f'{low:.2f} to {high:.2f}'
            '-0.15 to 4.15'
        """
        down, up = (self._half(LEVEL, error) for error in self.image_errors)
        return self.mean - down, self.mean + up

    def p_value(self, value: float = 0.0) -> float:
        """Of the true mean being ``value``: 1 - the level at which the interval ends there."""
        distance, by_images = abs(self.mean - value), self.image_errors[int(value > self.mean)]
        if math.isnan(self._half(LEVEL, by_images)):
            return math.nan
        low, high = 0.0, 1.0
        for _ in range(40):
            level = (low + high) / 2
            covered = distance <= self._half(level, by_images)
            low, high = (low, level) if covered else (level, high)
        return 1 - high

    def _half(self, level: float, by_images: float) -> float:
        if self.seeds < 2 and self.groups < 2:
            return math.nan
        return float(half_width(level, self.seed_error, self.seeds, by_images, self.groups))


def half_width(
    level: float,
    by_seeds: np.ndarray | float,
    seeds: int,
    by_images: np.ndarray | float,
    groups: int,
) -> np.ndarray:
    """Half of an interval, from the standard errors over seeds and over images.

    Example:
        >>> f'{half_width(0.95, 1.0, 3, 0.0, 0):.3f} {half_width(0.95, 1.0, 3, 1.0, 20):.3f}'
        '4.303 3.920'
    """
    by_seeds = np.asarray(by_seeds if seeds > 1 else 0.0)
    by_images = np.asarray(by_images if groups > 1 else 0.0)
    q = min(0.5, CAUTION * (1 - level))
    k = (seeds - 1) / (2 * gammaincinv((seeds - 1) / 2, q)) if seeds > 1 else 1.0
    of_seeds, of_images = k * by_seeds**2, by_images**2
    squares = of_seeds**2 / max(seeds - 1, 1) + of_images**2 / max(groups - 1, 1)
    with np.errstate(invalid='ignore'):
        freedom = np.where(squares > 0, (of_seeds + of_images) ** 2 / squares, 1.0)
    return stdtrit(freedom, (1 + level) / 2) * np.hypot(by_seeds, by_images)


def estimate(values: np.ndarray, resampled: np.ndarray | None = None, groups: int = 0) -> Estimate:
    """The mean over seeds with its errors.

    Args:
        values: Of each seed, (S,); those that are NaN take no part.
        resampled: The same on resamples of the images, (resamples, S); None without them.
        groups: How many groups of images the resamples were drawn from.

    Example:
        >>> estimate(np.array([1.0, 3.0]))
        Estimate(mean=2.0, seeds=2, seed_error=1.0, groups=0, image_errors=(0.0, 0.0))
    """
    known = ~np.isnan(values)
    values = values[known]
    seeds = len(values)
    if not seeds:
        return Estimate(math.nan, 0)
    mean = float(values.mean())
    seed_error = float(values.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    if resampled is None or groups < 2:
        return Estimate(mean, seeds, seed_error)
    return Estimate(
        mean, seeds, seed_error, groups, _image_errors(mean, resampled[:, known], groups)
    )


def _image_errors(mean: float, resampled: np.ndarray, groups: int) -> tuple[float, float]:
    means = resampled.mean(axis=1)
    means = means[~np.isnan(means)]
    if not len(means) or not means.std():
        return 0.0, 0.0
    share = 1.0
    if resampled.shape[1] > 1:
        # What the seeds have in common is due to the images; what each adds is in the seeds' error.
        covariance = np.cov(resampled[~np.isnan(resampled).any(axis=1)], rowvar=False)
        common = covariance[~np.eye(len(covariance), dtype=bool)].mean()
        share = max(0.0, float(common / covariance.mean()))
    # A bootstrap has the variance of the G values, not that of G - 1.
    normal = float(stdtrit(math.inf, (1 + LEVEL) / 2))
    scale = math.sqrt(share * groups / (groups - 1)) / normal
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return scale * max(0.0, mean - float(low)), scale * max(0.0, float(high) - mean)


def with_interval(mean: float, low: float, high: float, *, digits: int = 1, sign: str = '') -> str:
    """A number as all pages print it: with its interval, or alone where there is none.

    Args:
        mean: The number.
        low: Lower end; NaN where nothing is known of chance.
        high: Upper end.
        digits: Decimals.
        sign: '+' to print the sign of what is positive.

    Example:
        >>> with_interval(2.0, -0.15, 4.15, sign='+'), with_interval(2.0, math.nan, math.nan)
        ('+2.0 (-0.1 to +4.2)', '2.0')
    """
    first, *ends = (f'{value:{sign}.{digits}f}' for value in (mean, low, high))
    return first if math.isnan(low) else f'{first} ({" to ".join(ends)})'


def resamples(groups: Sequence[object], seed: int = 0) -> np.ndarray:
    """How often each image is in each resample, (:data:`RESAMPLES`, images).

    Args:
        groups: The group of each image; whole groups are drawn, with replacement.
        seed: Of the draw.

    Example:
        >>> resamples(['a', 'a', 'b']).shape
        (2000, 3)
    """
    _, index = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    number = int(index.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    return drawn[:, index]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for the whole family; NaN, which tests nothing, is not counted.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = highest
    return adjusted


def p_of_side(found: Estimate, low: float = 0.0, high: float = math.inf) -> float:
    """Of the true mean not being on the side of the ends of [low, high] where ``found`` is."""
    ends = [end for end in (low, high) if math.isfinite(end)]
    p_values = [found.p_value(end) for end in ends]
    if low < found.mean < high:
        return max(p_values)
    return p_values[int(np.argmin([abs(found.mean - end) for end in ends]))]


def outcome(found: Estimate, p: float, low: float = 0.0, high: float = math.inf) -> str:
    """Whether the true mean is in [low, high]: supported, contradicted or not settled.

    Args:
        found: What the runs give.
        p: Of :func:`p_of_side`, after :func:`holm` over what is compared.

    Example:
        >>> gain = Estimate(2.0, seeds=3, seed_error=0.2)
        >>> outcome(gain, p_of_side(gain))
        'supported'
        >>> outcome(gain, 0.3)
        'not settled'
    """
    if math.isnan(p) or p >= 1 - LEVEL:
        return NOT_SETTLED
    return SUPPORTED if low < found.mean < high else CONTRADICTED


def what_would_settle(found: Estimate, value: float = 0.0, comparisons: int = 1) -> str:
    """How many seeds, or else images, would tell the mean from ``value``, in words.

    Trainings with the seeds' and the images' errors of ``found`` are simulated, with the true mean
    where it seems to be, until :data:`POWER` of them settle it.
    """
    distance = abs(found.mean - value)
    if found.seeds < 2:
        return 'one seed shows no spread: two more seeds at least'
    spread = found.seed_error * math.sqrt(found.seeds)
    by_images = max(found.image_errors)
    level = 1 - (1 - LEVEL) / comparisons
    for seeds in range(found.seeds + 1, MAX_SEEDS + 1):
        if power(distance, spread, seeds, by_images, found.groups, level) >= POWER:
            more = seeds - found.seeds
            return f'about {more} more seed{"s" if more > 1 else ""} if it is as large as it seems'
    times = 2
    while found.groups and times <= MAX_TIMES:
        error, groups = by_images / math.sqrt(times), times * found.groups
        if power(distance, spread, MAX_SEEDS, error, groups, level) >= POWER:
            return f'{MAX_SEEDS} seeds and {times} times as many test images'
        times *= 2
    return f'more than {MAX_SEEDS} seeds: it is too close to call'


def power(
    distance: float, spread: float, seeds: int, by_images: float, groups: int, level: float
) -> float:
    """Share of simulated comparisons whose interval leaves out 0.

    Args:
        distance: Of the true mean from 0.
        spread: Standard deviation over seeds.
        seeds: Their number.
        by_images: Standard error over images.
        groups: Of images; 0 where they are not known.
        level: Of the interval; of m losses that are compared, 1 - 0.05 / m.

    Example:
        >>> power(2.0, spread=0.4, seeds=3, by_images=0.0, groups=0, level=0.95) > 0.9
        True
    """
    generator = np.random.default_rng(0)
    means = generator.normal(distance, math.hypot(spread / math.sqrt(seeds), by_images), 2000)
    errors = spread * np.sqrt(generator.chisquare(seeds - 1, 2000) / (seeds - 1) / seeds)
    return float((np.abs(means) > half_width(level, errors, seeds, by_images, groups)).mean())
