"""The handwritten digits that scikit-learn ships: real images for a training of seconds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS
from sklearn.datasets import load_digits

SPLITS = ('train', 'test')
TEST_IMAGES = 50
"""Of each class: its last ones, which are of other writers than its first."""


@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels with values 0 to 16, 10 classes.

    The last 50 images of each class are the test split; the other 124 to 133 of each class are
    the training split. Nothing is downloaded.

    Args:
        split: 'train' or 'test'.
        kwargs: Of :class:`mmpretrain.datasets.BaseDataset`. The pipeline gets the image itself.

    Raises:
        ValueError: An unknown split.

    Example:
        >>> len(DigitsDataset('train')), len(DigitsDataset('test'))
        (1297, 500)

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test set),
    as in :func:`sklearn.datasets.load_digits`.
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple(str(digit) for digit in range(10)))

    def __init__(self, split: str, **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        images, labels = load_digits().images.astype(np.uint8), load_digits().target
        last = [np.flatnonzero(labels == digit)[-TEST_IMAGES:] for digit in range(10)]
        chosen = np.isin(np.arange(len(labels)), last, invert=self.split == 'train')
        return [
            dict(img=image, gt_label=int(label))
            for image, label in zip(images[chosen], labels[chosen], strict=True)
        ]
