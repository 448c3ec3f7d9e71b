"""Raw SYNTHIA-SEQS trees."""

from itertools import product
from pathlib import Path

import numpy as np

from mmseg_recall.datasets.convert_synthia import CAMERAS, SIDES

from ..stubs import SIZE, colours, ids, picture, write

BAD_LABELS = {
    'size': (np.zeros((8, 8, 3), np.uint16), '8x8 pixels'),
    '8 bits': (np.zeros((*SIZE[::-1], 3), np.uint8), '16-bit RGB'),
    'grey': (np.zeros(SIZE[::-1], np.uint16), '16-bit RGB'),
    'ids': (colours((16, 0, 0), (300, 0, 0), dtype=np.uint16), r'unknown class ids \[16, 300\]'),
}


def views() -> list[tuple[str, str]]:
    return [*product(SIDES, CAMERAS)]


def write_raw(root: Path, frames: int) -> dict[Path, np.ndarray]:
    """Write a raw tree; returns the ids of each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    names = ['street 2.png', 'straße.png', *(f'{index:06d}.png' for index in range(frames - 2))]
    for view in product(SIDES, CAMERAS, names):
        image = picture(rng)
        # The other two channels hold what a converter must not read.
        label = rng.integers(0, 2**16, image.shape, dtype=np.uint16)
        path = root.joinpath('GT', 'LABELS', *view)
        truth[path] = label[..., 2] = ids(rng, 16)
        write(path, label)
        write(root.joinpath('RGB', *view), image)
    return truth
