"""From the raw SYNTHIA-SEQS tree to mmseg's layout, with the authors' split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .convert import Pair, decoded, split_names
from .synthia import SYNTHIA_IDS

SIDES = ('Stereo_Left', 'Stereo_Right')
CAMERAS = ('Omni_B', 'Omni_F', 'Omni_L', 'Omni_R')


def find_pairs(raw: Path) -> list[Pair]:
    """List the images of a raw tree with their labels, splits and new names.

    Args:
        raw: Folder of one sequence, such as ``SYNTHIA-SEQS-05-SUMMER``, holding
            ``RGB/SIDE/CAMERA/*.png`` and ``GT/LABELS/SIDE/CAMERA/*.png``.

    Returns:
        One pair an image, in the same order everywhere.

    Raises:
        FileNotFoundError: A view has no images.
    """
    pairs = []
    for side in SIDES:
        for camera in CAMERAS:
            images, labels = raw / 'RGB' / side / camera, raw / 'GT' / 'LABELS' / side / camera
            names = [path.name for path in images.glob('*.png') if not path.name.startswith('.')]
            if not names:
                raise FileNotFoundError(
                    f'No PNG images in {images}; RAW must be the folder of one SYNTHIA-SEQS '
                    'sequence, with RGB/ and GT/LABELS/ in it'
                )
            pairs += [
                Pair(images / name, labels / name, split, f'{side}_{camera}_{name}')
                for split, members in split_names(names).items()
                for name in members
            ]
    return pairs


def read_raw_label(path: Path) -> np.ndarray:
    """Read the class ids of a raw label: the red channel of a 16-bit RGB PNG.

    Args:
        path: A file of ``GT/LABELS``.

    Returns:
        Ids 0-15, uint8, shape (height, width).

    Raises:
        ValueError: The file cannot be read, is empty, truncated, of another kind, or has an unknown
            id.
    """
    ids = decoded(path, 'a 16-bit RGB', np.uint16, [3])[:, :, 2]
    unknown = np.unique(ids[ids >= len(SYNTHIA_IDS)])
    if unknown.size:
        raise ValueError(
            f'{path}: unknown class ids {unknown.tolist()}; SYNTHIA has 0 to {len(SYNTHIA_IDS) - 1}'
        )
    return ids.astype(np.uint8)
