"""What every converter does: pairs of raw files in, a whole tree in mmseg's layout out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .files import (
    image_header,
    is_current,
    link_or_copy,
    read_whole,
    whole_folder,
    write_atomically,
)
from .parallel import parallel_map


class Pair(NamedTuple):
    """A raw image with its raw label, and where they go.

    The image goes to ``images/SPLIT/NAME``, the label to ``annotations/SPLIT`` under the same name
    with the suffix ``.png``.
    """

    raw_image: Path
    raw_label: Path
    split: str
    name: str

    def converted(self, folder: Path) -> tuple[Path, Path]:
        """Paths of the converted image and label in ``folder``."""
        label = folder / 'annotations' / self.split / self.name
        return folder / 'images' / self.split / self.name, label.with_suffix('.png')


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Split the frames of one view as the authors do.

    The names are sorted, shuffled with seed 0, and cut: the first 70% are for training, the next
    10% for validation, the rest for testing. The authors shuffle what ``glob`` returns, whose
    order depends on the file system; sorting first makes the split the same everywhere.

    Args:
        names: File names of one view, in any order.

    Returns:
        Lists of names under ``'train'``, ``'val'`` and ``'test'``.

    Example:
        >>> split = split_names(f'{i:06d}.png' for i in range(787))
        >>> [len(split[name]) for name in ('train', 'val', 'test')]
        [550, 78, 159]

    Source: the authors' loaders of SYNTHIA (8 views of 787 frames give the paper's 4400/624/1272)
    and of Virtual KITTI 2.
    """
    names = sorted(names)
    random.Random(0).shuffle(names)
    train, val = int(0.7 * len(names)), int(0.1 * len(names))
    return {'train': names[:train], 'val': names[train : train + val], 'test': names[train + val :]}


ReadLabel = Callable[[Path], np.ndarray]


def convert_tree(
    pairs: Sequence[Pair], read_label: ReadLabel, out: str | Path, description: str
) -> None:
    """Convert all pairs into ``out/{images,annotations}/SPLIT``, on all cores.

    Images whose new name keeps their suffix are hard-linked where the file system allows and
    copied where not; others are stored as PNG. ``out`` appears under its name only when it is
    complete, and a killed run is completed by running it again.

    Args:
        pairs: What to convert; a new name ends in ``.png`` or as the raw image does.
        read_label: Picklable function from a raw label's path to ids, uint8, (height, width).
        out: Folder to make; absent or empty.
        description: Text before the progress bar.

    Raises:
        FileNotFoundError: An image has no label, or a label no image; raised before anything is
            written.
        ValueError: A file cannot be read, is damaged, of the wrong kind or size, or has an unknown
            id.
        FileExistsError: ``out`` has something in it.
        OSError: A file cannot be written, for want of space, say.
    """
    _refuse_unpaired(pairs)
    with whole_folder(Path(out)) as folder:
        convert = partial(_convert_pair, read_label=read_label, folder=folder)
        for _ in parallel_map(convert, pairs, description):
            pass
        wanted = {path for pair in pairs for path in pair.converted(folder)}
        for path in folder.rglob('*'):
            # What a killed run on another raw tree has left would otherwise be part of this one.
            if path.is_file() and path not in wanted:
                path.unlink()


def _refuse_unpaired(pairs: Sequence[Pair]) -> None:
    missing = [pair for pair in pairs if not pair.raw_label.exists()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(pairs)} images have no label; the first is '
            f'{missing[0].raw_image}, whose label should be {missing[0].raw_label}'
        )
    # An image that was lost would not only be left out: every split is drawn from the list.
    labels = {pair.raw_label for pair in pairs}
    folders = {(label.parent, label.suffix) for label in labels}
    found = {path for folder, suffix in folders for path in folder.glob(f'[!.]*{suffix}')}
    unpaired = sorted(found - labels)
    if unpaired:
        raise FileNotFoundError(
            f'{len(unpaired)} of {len(found)} labels have no image; the first is {unpaired[0]}. '
            'Get the images again, or remove the labels'
        )


def _convert_pair(pair: Pair, read_label: ReadLabel, folder: Path) -> None:
    image, label = pair.converted(folder)
    if is_current(image, pair.raw_image) and is_current(label, pair.raw_label):
        return
    data = read_whole(pair.raw_image)
    (width, height), _ = image_header(data, pair.raw_image)
    ids = read_label(pair.raw_label)
    if ids.shape != (height, width):
        raise ValueError(
            f'{pair.raw_label}: the label is {ids.shape[1]}x{ids.shape[0]} pixels, '
            f'and its image {width}x{height}'
        )
    write_atomically(label, encode_png(ids), pair.raw_label.stat().st_mtime_ns)
    if pair.raw_image.suffix == image.suffix:
        link_or_copy(pair.raw_image, image)
    else:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        write_atomically(image, encode_png(pixels), pair.raw_image.stat().st_mtime_ns)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an array (OpenCV's channel order) as a PNG file."""
    _, data = cv2.imencode('.png', pixels)
    return data.tobytes()
