"""Make a data set long-tailed by leaving images out."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmpretrain.registry import DATASETS

PROFILES = ('exponential', 'pareto')


def long_tail(
    largest: int,
    num_classes: int,
    imbalance_factor: float,
    profile: str = 'exponential',
    alpha: float = 6.0,
) -> list[int]:
    """Samples of each class, falling from ``largest`` to ``largest / imbalance_factor``.

        N_c = floor(largest f(c / (C - 1))), at least 1
        f(t) = F^-t                            (profile='exponential')
        f(t) = (1 + t (F^(1/a) - 1))^-a        (profile='pareto': the tail of a Pareto distribution)

    with F the imbalance factor and a = alpha. The larger alpha, the closer is the Pareto profile to
    the exponential one; the smaller, the faster do the first classes fall and the longer is the
    tail.

    Args:
        largest: Samples of class 0, at least 1.
        num_classes: C.
        imbalance_factor: F >= 1.
        profile: 'exponential' or 'pareto'.
        alpha: a > 0, the power of the Pareto profile; Places-LT was drawn with 6.

    Raises:
        ValueError: An argument out of its range.

    Example:
        >>> long_tail(100, 3, 25)
        [100, 20, 4]
        >>> long_tail(100, 3, 25, profile='pareto', alpha=1)
        [100, 7, 4]

    Source: Cui et al. 2019 (exponential); Liu et al. 2019 (Pareto).
    """
    if profile not in PROFILES:
        raise ValueError(f'profile must be one of {PROFILES}, got {profile!r}')
    for name, value, lowest in (
        ('largest', largest, 1),
        ('num_classes', num_classes, 1),
        ('imbalance_factor', imbalance_factor, 1),
    ):
        if not lowest <= value < float('inf'):
            raise ValueError(f'{name} must be >= {lowest} and finite, got {value}')
    if not 0 < alpha < float('inf'):
        raise ValueError(f'alpha must be positive and finite, got {alpha}')
    t = np.linspace(0, 1, num_classes)
    if profile == 'exponential':
        share = imbalance_factor**-t
    else:
        share = (1 + t * (imbalance_factor ** (1 / alpha) - 1)) ** -alpha
    # What is a whole number but for rounding is that number.
    return np.maximum(1, np.floor(largest * share + 1e-9)).astype(int).tolist()


@DATASETS.register_module()
class LongTailedDataset:
    """Any mmpretrain data set, with as many images of each class left as :func:`long_tail` says.

    Class 0 becomes the most frequent one and keeps as many images as the smallest class has, so
    that no class lacks images for its share, or ``largest``. Images are left out, never repeated
    or changed.

    Args:
        dataset: An mmpretrain data set or its config.
        imbalance_factor: See :func:`long_tail`.
        profile: See there.
        alpha: See there.
        largest: Images of class 0; None for as many as the smallest class has.
        seed: Of the choice of images; the same seed gives the same images.
        lazy_init: Whether to load the data set later, in ``full_init()``.

    Attributes:
        class_counts: Images of each class that are left.

    Raises:
        ValueError: A class without an image, or with fewer than its share; see :func:`long_tail`
            for the arguments.

    Example:
        >>> digits = dict(type='DigitsDataset', split='train')
        >>> LongTailedDataset(digits, imbalance_factor=50).class_counts
        [124, 80, 51, 33, 21, 14, 9, 5, 3, 2]
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        imbalance_factor: float,
        profile: str = 'exponential',
        alpha: float = 6.0,
        seed: int = 0,
        lazy_init: bool = False,
        largest: int | None = None,
    ) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.tail: dict[str, Any] = dict(
            imbalance_factor=imbalance_factor, profile=profile, alpha=alpha
        )
        self.seed = seed
        self.largest = largest
        self.class_counts: list[int] = []
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        return copy.deepcopy(self.dataset.metainfo)

    def full_init(self) -> None:
        """Load the data set, and choose its images."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        labels = np.asarray(self.dataset.get_gt_labels())
        num_classes = len(self.metainfo['classes'])
        available = np.bincount(labels, minlength=num_classes)
        if not available.all():
            raise ValueError(
                f'class {self.metainfo["classes"][int(available.argmin())]!r} of '
                f'{type(self.dataset).__name__} has no image to keep'
            )
        largest = int(available.min()) if self.largest is None else self.largest
        self.class_counts = long_tail(largest, num_classes, **self.tail)
        lacking = int((available - self.class_counts).argmin())
        if available[lacking] < self.class_counts[lacking]:
            raise ValueError(
                f'class {self.metainfo["classes"][lacking]!r} of {type(self.dataset).__name__} has '
                f'{available[lacking]} images, its share of largest={largest} is '
                f'{self.class_counts[lacking]}: lower largest'
            )
        generator = np.random.default_rng(self.seed)
        kept = [
            generator.permutation(np.flatnonzero(labels == label))[:count]
            for label, count in enumerate(self.class_counts)
        ]
        self.dataset = self.dataset.get_subset(np.sort(np.concatenate(kept)).tolist())
        self._fully_initialized = True

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        return self.dataset.get_data_info(idx)

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        return self.dataset.get_gt_labels()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        return self.dataset.get_cat_ids(idx)

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @force_full_init
    def __getitem__(self, idx: int) -> Any:
        return self.dataset[idx]
