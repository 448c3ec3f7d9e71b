"""Training crops that show every class equally often, however rare it is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmengine.dist import broadcast_object_list, is_main_process
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import RandomCrop
from mmseg.registry import DATASETS, TRANSFORMS

from .files import write_atomically
from .labels import count_label, fingerprint, label_sources
from .parallel import parallel_map


@DATASETS.register_module()
class ClassBalancedCrops:
    """A data set whose items are drawn by class: the class first, then an image that shows it.

    The class is uniform over those that the training set has, the image uniform over those with a
    pixel of it, and :class:`CropAroundClass`, which the pipeline must have in place of mmseg's
    ``RandomCrop``, crops around a pixel of that class. An epoch has as many items as before; which
    ones the sampler asks for does not matter. Items are drawn from numpy's random numbers, as all
    augmentation is: the run's seed decides, and ``ReplayedInfiniteSampler`` replays them.

    Args:
        dataset: A data set of mmseg or its config; wrappers of several go around this one.
        index: JSON file that remembers which images show which class. It is written where it is
            missing or of other files: labels are read once, with all cores, by the main process.

    Raises:
        TypeError: The dataset is a wrapper.
        ValueError: The pipeline has no CropAroundClass; a label is damaged or has unknown ids
            (names the file); no label has a pixel of a class.
        FileNotFoundError: A label is missing.

    Example:
        >>> crop = dict(type='CropAroundClass', crop_size=(180, 240))
        >>> pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), crop]
        >>> dataset = dict(type='CamVidDataset', lazy_init=True, pipeline=pipeline)
        >>> len(ClassBalancedCrops(dataset, 'data/camvid/class_images.json').metainfo['classes'])
        11

    Source: class first, then image, as Shen et al. 2016, "Relay Backpropagation"; DAFormer's
    rare-class sampling (Hoyer et al. 2022) prefers rare classes and crops until it finds them.
    """

    def __init__(self, dataset: dict | BaseSegDataset, index: str | Path) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if not isinstance(self.dataset, BaseSegDataset):
            raise TypeError(
                'ClassBalancedCrops takes a data set of mmseg, not '
                f'{type(self.dataset).__name__}: put it inside, around each data set'
            )
        if not any(isinstance(t, CropAroundClass) for t in self.dataset.pipeline.transforms):
            raise ValueError(
                f'the pipeline of {type(self.dataset).__name__} has no CropAroundClass, without '
                'which ClassBalancedCrops does not reach the crops: put it in place of RandomCrop'
            )
        self.index = Path(index)
        self.images: dict[int, list[int]] = {}

    @property
    def metainfo(self) -> dict:
        """That of the data set inside."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the index, or make it; mmengine's runner calls this on every rank."""
        if self.images:
            return
        self.dataset.full_init()
        found: list = [None]
        if is_main_process():
            try:
                found = [images_of_classes(self.dataset, self.index)]
            except (OSError, ValueError) as error:
                found = [error]
        # The other ranks fail with the same words instead of waiting for one that is gone.
        broadcast_object_list(found)
        if isinstance(found[0], Exception):
            raise found[0]
        self.images = {c: images for c, images in enumerate(found[0]) if images}
        absent = [name for c, name in enumerate(self.metainfo['classes']) if c not in self.images]
        if not self.images:
            raise ValueError(f'no label of {type(self.dataset).__name__} has a pixel of a class')
        if absent:
            warnings.warn(f'No crop is drawn for {absent}, which no label shows', stacklevel=2)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        self.full_init()
        c = np.random.choice(list(self.images))
        info = self.dataset.get_data_info(np.random.choice(self.images[c]))
        return self.dataset.pipeline(dict(info, crop_class=c))


@TRANSFORMS.register_module()
class CropAroundClass(RandomCrop):
    """mmseg's ``RandomCrop``, of those crops that hold a pixel of the class that was drawn.

    The pixel is uniform over those of the class, the crop over those that hold the pixel. Where no
    pixel is left, an object having vanished as its image was made smaller, it is any crop.

    Args:
        crop_size: (height, width), or one number for both.

    Raises:
        KeyError: 'crop_class', where the data set is not within :class:`ClassBalancedCrops`.

    Example:
        >>> label = np.zeros((8, 8), np.uint8)
        >>> label[6, 1] = 3
        >>> crop = CropAroundClass(crop_size=2)
        >>> 3 in crop(dict(img=label, gt_seg_map=label, seg_fields=[], crop_class=3))['img']
        True
    """

    def __init__(self, crop_size: int | tuple[int, int]) -> None:
        super().__init__(crop_size)

    @cache_randomness
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the crop."""
        label = results['gt_seg_map']
        pixels = np.flatnonzero(label == results['crop_class'])
        pixel = np.random.choice(pixels if len(pixels) else label.size)
        box: list[int] = []
        for at, size, length in zip(
            np.unravel_index(pixel, label.shape), self.crop_size, label.shape, strict=True
        ):
            first, last = max(at - size + 1, 0), min(at, max(length - size, 0))
            start = np.random.randint(first, last + 1)
            box += [start, start + size]
        return tuple(box)


def images_of_classes(dataset: BaseSegDataset, index: Path) -> list[list[int]]:
    """Numbers of the images that show each class, from ``index`` if that is of these very files.

    Args:
        dataset: A data set of mmseg.
        index: JSON file; written after the labels have been read.

    Returns:
        One list a class.

    Raises:
        FileNotFoundError: A label is missing.
        ValueError: A label is damaged or has unknown ids; names the file.
    """
    files = fingerprint(dataset)
    try:
        known = json.loads(index.read_bytes())
        if known['files'] == files:
            return known['images']
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # Absent, or not what is written below: then nothing is known.
    classes = dataset.metainfo['classes']
    images: list[list[int]] = [[] for _ in classes]
    counts = parallel_map(count_label, label_sources(dataset), 'Looking for classes')
    for number, count in enumerate(counts):
        for c in np.flatnonzero(count):
            images[c].append(number)
    known = dict(classes=list(classes), images=images, files=files)
    write_atomically(index, json.dumps(known).encode())
    return images
