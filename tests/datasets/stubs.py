"""Small data set trees that tests write."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np

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


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    """Keep the first two thirds of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def empty(path: Path) -> None:
    path.write_bytes(b'')


def damaged(path: Path) -> None:
    """Turn over the bits of a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


def folder(path: Path) -> None:
    """What nobody can read, root included, though it exists."""
    path.unlink()
    path.mkdir()


def symlink_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def bomb(path: Path) -> None:
    """A PNG that claims to have 10^10 pixels."""
    data = path.read_bytes()
    header = b'IHDR' + (100_000).to_bytes(4, 'big') * 2 + data[24:29]
    path.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, 'big') + data[33:])


def remove(path: Path) -> None:
    """Whatever is there."""
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def ids(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, count, (SIZE[1], SIZE[0]), dtype=np.uint8)


def colours(*values: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """A black label whose first pixels have the given RGB colours."""
    label = np.zeros((SIZE[1], SIZE[0], 3), dtype)
    label[0, : len(values)] = np.array(values)[:, ::-1]
    return label


def tree(
    root: Path, splits: dict[str, int], count: int, suffix: str = '.png'
) -> dict[str, dict[str, np.ndarray]]:
    """Write a tree in mmseg's layout; returns the ids by split and file name of the label."""
    rng = np.random.default_rng(1)
    truth = {split: {} for split in splits}
    for split, number in splits.items():
        for index in range(number):
            name = f'{split}{index}.png'
            truth[split][name] = ids(rng, count)
            write((root / 'images' / split / name).with_suffix(suffix), picture(rng))
            write(root / 'annotations' / split / name, truth[split][name])
    return truth


def dataset(type_: str, root: Path, split: str = 'train', **kwargs) -> dict:
    """Config of a dataset of :func:`tree`."""
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    return dict(type=type_, data_root=str(root), data_prefix=prefix, pipeline=PIPELINE, **kwargs)
