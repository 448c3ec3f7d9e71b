"""What every converter does: pairs of raw files in, a whole tree in mmseg's layout out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .files import (
    image_header,
    is_current,
    link_or_copy,
    whole_folder,
    write_atomically,
)
from .parallel import parallel_map


class Pair(NamedTuple):
    """A raw image with its raw label, and where they go: ``images/SPLIT/NAME`` and so on."""

    raw_image: Path
    raw_label: Path
    split: str
    name: str

    def converted(self, folder: Path) -> tuple[Path, Path]:
        """Paths of the converted image and label in ``folder``."""
        return tuple(folder / kind / self.split / self.name for kind in ('images', 'annotations'))


ReadLabel = Callable[[Path], np.ndarray]


def convert_tree(
    pairs: Sequence[Pair], read_label: ReadLabel, out: str | Path, description: str
) -> None:
    """Convert all pairs into ``out/{images,annotations}/SPLIT/*.png``, on all cores.

    PNG images are hard-linked where the file system allows and copied where not; other images are
    stored as PNG. ``out`` appears under its name only when it is complete, and a killed run is
    completed by running it again.

    Args:
        pairs: What to convert; the names end in ``.png``.
        read_label: Picklable function from a raw label's path to ids, uint8, (height, width).
        out: Folder to make; absent or empty.
        description: Text before the progress bar.

    Raises:
        FileNotFoundError: An image has no label; raised before anything is written.
        ValueError: A file is damaged, of the wrong kind or size, or has an unknown id.
        FileExistsError: ``out`` has something in it.
    """
    missing = [pair for pair in pairs if not pair.raw_label.exists()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(pairs)} images have no label; the first is '
            f'{missing[0].raw_image}, whose label should be {missing[0].raw_label}'
        )
    with whole_folder(Path(out)) as folder:
        convert = partial(_convert_pair, read_label=read_label, folder=folder)
        for _ in parallel_map(convert, pairs, description):
            pass
        wanted = {path for pair in pairs for path in pair.converted(folder)}
        for path in folder.rglob('*'):
            # What a killed run on another raw tree has left would otherwise be part of this one.
            if path.is_file() and path not in wanted:
                path.unlink()


def _convert_pair(pair: Pair, read_label: ReadLabel, folder: Path) -> None:
    image, label = pair.converted(folder)
    if is_current(image, pair.raw_image) and is_current(label, pair.raw_label):
        return
    (width, height), _ = image_header(pair.raw_image.read_bytes(), pair.raw_image)
    ids = read_label(pair.raw_label)
    if ids.shape != (height, width):
        raise ValueError(
            f'{pair.raw_label}: the label is {ids.shape[1]}x{ids.shape[0]} pixels, '
            f'and its image {width}x{height}'
        )
    write_atomically(label, encode_png(ids), pair.raw_label.stat().st_mtime_ns)
    if pair.raw_image.suffix == '.png':
        link_or_copy(pair.raw_image, image)
    else:
        pixels = cv2.imdecode(np.fromfile(pair.raw_image, np.uint8), cv2.IMREAD_COLOR)
        write_atomically(image, encode_png(pixels), pair.raw_image.stat().st_mtime_ns)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an array (OpenCV's channel order) as a PNG file."""
    _, data = cv2.imencode('.png', pixels)
    return data.tobytes()
