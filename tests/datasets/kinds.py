"""Datasets of people: small ones that plain mmseg trains on, and what it does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from . import stubs

WIDTH, HEIGHT = stubs.SIZE
SIZE = HEIGHT, WIDTH
CLASSES = dict(classes=('a', 'b', 'c'))


class ReadArray(BaseTransform):
    """An own loader of images, without mmcv's name for them."""

    def transform(self, results: dict) -> dict:
        path = Path(results['img_path'])
        results['img'] = np.load(path) if path.suffix == '.npy' else cv2.imread(str(path), -1)
        results['img_shape'] = results['img'].shape[:2]
        return results


class LoadIds(BaseTransform):
    """An own loader of labels: 16 bits in thousands, colours, or an array."""

    def transform(self, results: dict) -> dict:
        path = Path(results['seg_map_path'])
        raw = np.load(path) if path.suffix == '.npy' else cv2.imread(str(path), -1)
        ids = (
            raw[..., 0] // 100 if raw.ndim == 3 else raw // 1000 if raw.dtype == np.uint16 else raw
        )
        results['gt_seg_map'] = ids.astype(np.uint8)
        results['seg_fields'] = ['gt_seg_map']
        return results


class MapMask(BaseTransform):
    """0 and 255 to 0 and 1, after the loader."""

    def transform(self, results: dict) -> dict:
        results['gt_seg_map'] = (results['gt_seg_map'] > 127).astype(np.uint8)
        return results


class Crop(BaseTransform):
    """An own augmentation, which keeps the ids."""

    def transform(self, results: dict) -> dict:
        for key in ('img', 'gt_seg_map'):
            if key in results:
                results[key] = results[key][:8, :8]
        return results


class Whole(Dataset):
    """Of torch: no info, no pipeline."""

    metainfo = CLASSES

    def __init__(self, label: np.ndarray) -> None:
        self.label = label

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict:
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.tensor(self.label)[None]))
        return dict(inputs=torch.zeros(3, *self.label.shape), data_samples=sample)


class Stream(IterableDataset):
    metainfo = CLASSES

    def __iter__(self) -> Any:
        return iter(Whole(np.zeros(SIZE, np.uint8)))


class Listed(BaseDataset):
    """Of mmengine's base, without what mmseg adds to the info."""

    METAINFO = CLASSES

    def __init__(self, files: list[dict], **kwargs: Any) -> None:
        self.files = files
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        return [dict(file) for file in self.files]


class Drawn(BaseSegDataset):
    """Of mmseg's base, which makes its items itself."""

    METAINFO = CLASSES

    def load_data_list(self) -> list[dict]:
        return [dict(img_path='drawn', seg_map_path='drawn')] * 2

    def __getitem__(self, index: int) -> dict:
        return Whole(np.full(SIZE, 2, np.uint8))[index]


LABEL = (np.arange(WIDTH * HEIGHT).reshape(SIZE) % 3).astype(np.uint8)


def pair(root: Path, image: np.ndarray, label: np.ndarray, suffixes: tuple[str, str]) -> None:
    """Write an image and its label, as files of these suffixes."""
    for kind, pixels, suffix in zip(
        ('images', 'annotations'), (image, label), suffixes, strict=True
    ):
        path = root / kind / 'train' / f'0{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == '.npy':
            np.save(path, pixels)
        elif suffix == '.tif' and pixels.dtype == np.float32:
            Image.fromarray(pixels, mode='F').save(path)
        elif suffix == '.tif':
            assert cv2.imwritemulti(str(path), [*pixels.transpose(2, 0, 1)])
        else:
            stubs.write(path, pixels)


def of_files(root: Path, image: Any, label: Any, suffixes: tuple, *pipeline: Any) -> BaseSegDataset:
    """mmseg's own dataset of one pair of files, loaded by ``pipeline``."""
    pair(root, image, label, suffixes)
    prefix = dict(img_path='images/train', seg_map_path='annotations/train')
    return BaseSegDataset(
        data_root=str(root), data_prefix=prefix, img_suffix=suffixes[0],
        seg_map_suffix=suffixes[1], metainfo=CLASSES, pipeline=list(pipeline),
    )  # fmt: skip
