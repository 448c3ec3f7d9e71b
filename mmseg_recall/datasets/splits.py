"""Images that training shows and an evaluation scores, whatever their files are called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .labels import Item
from .parallel import parallel_map


class Picture(NamedTuple):
    """What tells an image from others."""

    path: str
    content: str
    """Digest of its pixels; of its bytes, where OpenCV cannot read it."""
    thumbnail: np.ndarray | None
    """16 x 16, of mean 0 and deviation 1; None where OpenCV cannot read it."""


def pictures(items: Iterable[Item], description: str) -> list[Picture]:
    """Each image file once; what is no file is left out."""
    paths = dict.fromkeys(item.paths.get('img_path', '') for item in items)
    known = [path for path in paths if os.path.isfile(path)]
    return list(parallel_map(_picture, known, description, threads=True))


def _picture(path: str) -> Picture:
    try:
        image = cv2.imread(path, cv2.IMREAD_COLOR)
    except cv2.error:  # of more pixels than it takes
        image = None
    if image is None:
        return Picture(path, hashlib.sha256(Path(path).read_bytes()).hexdigest(), None)
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    spread = small.std() or 1.0
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    return Picture(path, digest, (small - small.mean()) / spread)


def shared(train: Iterable[Picture], evaluation: Iterable[Picture]) -> list[tuple[str, str]]:
    """Paths of the evaluation images that are training images, and of those.

    Example:
        >>> one, same = (Picture(path, 'digest', None) for path in ('a.png', 'copy.png'))
        >>> shared([one], [same, Picture('b.png', 'other', None)])
        [('copy.png', 'a.png')]
    """
    known = {picture.content: picture.path for picture in train}
    return [(p.path, known[p.content]) for p in evaluation if p.content in known]
