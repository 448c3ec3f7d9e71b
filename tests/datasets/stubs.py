"""Small data set trees that tests write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmseg_recall.datasets.convert_synthia import CAMERAS, SIDES

SIZE = 24, 16
"""Width and height of the stub images."""

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write a PNG or JPEG whatever the letters in its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def truncate(path: Path) -> None:
    """Keep the first two thirds of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def ids(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, count, (SIZE[1], SIZE[0]), dtype=np.uint8)


def raw_synthia(root: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Write a raw SYNTHIA-SEQS tree; returns the ids under the names of the converted files."""
    rng = np.random.default_rng(0)
    truth = {}
    for side in SIDES:
        for camera in CAMERAS:
            for name in names:
                # The other two channels hold what a converter must not read.
                label = rng.integers(0, 2**16, (SIZE[1], SIZE[0], 3), dtype=np.uint16)
                truth[f'{side}_{camera}_{name}'] = label[..., 2] = ids(rng, 16)
                write(root / 'RGB' / side / camera / name, picture(rng))
                write(root / 'GT' / 'LABELS' / side / camera / name, label)
    return truth


def tree(root: Path, splits: dict[str, int], count: int) -> dict[str, dict[str, np.ndarray]]:
    """Write a tree in mmseg's layout; returns the ids by split and file name."""
    rng = np.random.default_rng(1)
    truth = {split: {} for split in splits}
    for split, number in splits.items():
        for index in range(number):
            name = f'{split}{index}.png'
            truth[split][name] = ids(rng, count)
            write(root / 'images' / split / name, picture(rng))
            write(root / 'annotations' / split / name, truth[split][name])
    return truth


def dataset(type_: str, root: Path, split: str = 'train', **kwargs) -> dict:
    """Config of a dataset of :func:`tree`."""
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    return dict(type=type_, data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, **kwargs)
