"""From the Virtual KITTI 2.0.3 release to mmseg's layout, with the authors' split."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from .convert import Pair, decoded, layout_of, split_names
from .virtual_kitti import UNDEFINED_COLOUR, VIRTUAL_KITTI_COLOURS

LAYOUTS = {
    'Scene01': ('', ''),
    'vkitti_2.0.3_rgb': ('vkitti_2.0.3_rgb', 'vkitti_2.0.3_classSegmentation'),
}
"""Folders of images and labels, by the folder that tells the layout: archives in one, or each
in its own."""

SCENES = ('Scene01', 'Scene02', 'Scene06', 'Scene18', 'Scene20')
VARIATIONS = (
    *('15-deg-left', '15-deg-right', '30-deg-left', '30-deg-right', 'clone'),
    *('fog', 'morning', 'overcast', 'rain', 'sunset'),
)
CAMERAS = ('Camera_0', 'Camera_1')


def _codes(bgr: np.ndarray) -> np.ndarray:
    return bgr.astype(np.int32) @ np.array([1, 2**8, 2**16], np.int32)


_IDS = {colour: id_ for id_, colour in enumerate(VIRTUAL_KITTI_COLOURS.values())}
_IDS[UNDEFINED_COLOUR] = 255
_SORTED_CODES, _SORTED_IDS = np.array(
    sorted((int(_codes(np.array(colour[::-1]))), id_) for colour, id_ in _IDS.items())
).T


def find_pairs(raw: Path) -> list[Pair]:
    """List the images of the release with their labels, splits and new names.

    Each scene, variation and camera is split by itself, as the authors do
    (:func:`~mmseg_recall.datasets.convert.split_names`). All 20 views of a scene have the same
    frames, so they are split alike, and no moment of a drive is in two splits.

    Args:
        raw: Folder in which ``vkitti_2.0.3_rgb.tar`` and ``vkitti_2.0.3_classSegmentation.tar``
            were unpacked, together or each in a folder of the archive's name.

    Returns:
        One pair an image, in the same order everywhere.

    Raises:
        FileNotFoundError: Neither layout is there, or a view has no images.
    """
    layout = layout_of(raw, LAYOUTS, 'Virtual KITTI 2')
    pairs = []
    for view in product(SCENES, VARIATIONS, CAMERAS):
        images, labels = (
            raw / folder / view[0] / view[1] / 'frames' / kind / view[2]
            for folder, kind in zip(layout, ('rgb', 'classSegmentation'), strict=True)
        )
        names = [path.name for path in images.glob('rgb_*.jpg')]
        if not names:
            raise FileNotFoundError(
                f'No images rgb_*.jpg in {images}; RAW must hold all {len(SCENES)} scenes of '
                'vkitti_2.0.3_rgb.tar, with all variations and cameras'
            )
        pairs += [
            Pair(
                images / name,
                labels / f'classgt_{Path(name).stem.removeprefix("rgb_")}.png',
                split,
                '_'.join((*view, name)),
            )
            for split, members in split_names(names).items()
            for name in members
        ]
    return pairs


def read_raw_label(path: Path) -> np.ndarray:
    """Read the class ids of a colour-coded label, Undefined becoming 255.

    Args:
        path: A file of ``classSegmentation``: 8-bit colour PNG; an alpha channel is not read.

    Returns:
        Ids 0-13 and 255, uint8, shape (height, width).

    Raises:
        ValueError: The file cannot be read, is empty, truncated, of another kind, or has an unknown
            colour.
    """
    codes = _codes(decoded(path, 'an 8-bit colour', np.uint8, [3, 4])[:, :, :3])
    nearest = np.searchsorted(_SORTED_CODES, codes).clip(max=len(_SORTED_CODES) - 1)
    unknown = np.unique(codes[_SORTED_CODES[nearest] != codes])
    if unknown.size:
        colours = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in unknown[:3]]
        raise ValueError(
            f'{path}: unknown RGB colours {str(colours)[1:-1]}'
            f'{f" and {unknown.size - 3} more" if unknown.size > 3 else ""}; Virtual KITTI 2 has '
            f'the {len(VIRTUAL_KITTI_COLOURS)} class colours of its colors.txt, and black'
        )
    return _SORTED_IDS[nearest].astype(np.uint8)
