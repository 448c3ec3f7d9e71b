"""Virtual KITTI 2 releases."""

from itertools import product
from pathlib import Path

import numpy as np

from mmseg_recall.datasets import convert_virtual_kitti
from mmseg_recall.datasets.virtual_kitti import UNDEFINED_COLOUR, VIRTUAL_KITTI_COLOURS

from ..stubs import SIZE, colours, ids, picture, write

BAD_LABELS = {
    'size': (np.zeros((8, 8, 3), np.uint8), '8x8 pixels'),
    '16 bits': (np.zeros((*SIZE[::-1], 3), np.uint16), '8-bit colour'),
    'grey': (np.zeros(SIZE[::-1], np.uint8), '8-bit colour'),
    # One below a known colour, and one above them all.
    'colours': (
        colours((210, 0, 199), (255, 255, 255)),
        r'unknown RGB colours \(210, 0, 199\), \(255, 255, 255\);',
    ),
    'many colours': (colours(*((index, 1, 2) for index in range(5))), r'\(2, 1, 2\) and 2 more;'),
}


def views() -> list[tuple[str, str, str]]:
    release = convert_virtual_kitti
    return [*product(release.SCENES, release.VARIATIONS, release.CAMERAS)]


def write_raw(
    root: Path, frames: int, archives: tuple[str, str] = ('', '')
) -> dict[Path, np.ndarray]:
    """Write a release; returns the ids wanted for each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    palette = np.array([*VIRTUAL_KITTI_COLOURS.values(), UNDEFINED_COLOUR], np.uint8)
    for (scene, variation, camera), index in product(views(), range(frames)):
        images, labels = (root / archive / scene / variation / 'frames' for archive in archives)
        path = labels / 'classSegmentation' / camera / f'classgt_{index:05d}.png'
        label = ids(rng, len(palette))
        write(path, palette[label][..., ::-1])
        truth[path] = np.where(label == len(VIRTUAL_KITTI_COLOURS), 255, label)
        write(images / 'rgb' / camera / f'rgb_{index:05d}.jpg', picture(rng))
    return truth
