"""The areas of each test image, small enough for a record: they say how far the images matter."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import numpy as np

from ..evaluation import Areas


def pack(images: Areas, names: list[str]) -> dict[str, Any]:
    """Areas (images, C) and the stems of the images' files, for JSON.

    Example:
        >>> areas = Areas(*(np.array([[1, 2], [3, 4]]) for _ in range(3)))
        >>> unpack(pack(areas, ['a', 'b']), num_classes=2)[0].label.tolist()
        [[1, 2], [3, 4]]

    Raises:
        ValueError: Other images than were tested, as where the dataset has changed since.
    """
    if len(names) != len(images.label):
        raise ValueError(f'{len(images.label)} images were tested, and {len(names)} are there now')
    data = np.stack(images).astype('<i8').tobytes()
    return {'names': names, 'data': base64.b64encode(zlib.compress(data, 9)).decode()}


def unpack(packed: Any, num_classes: int) -> tuple[Areas, tuple[str, ...]]:
    """What :func:`pack` was given.

    Raises:
        ValueError: Damaged.
    """
    try:
        names = tuple(map(str, packed['names']))
        size = 3 * len(names) * num_classes * 8
        # At most a byte more than there can be, whatever the file says.
        data = zlib.decompressobj().decompress(base64.b64decode(packed['data']), size + 1)
        areas = np.frombuffer(data, '<i8').reshape(3, len(names), num_classes)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"'image_areas' is malformed ({error})") from error
    return Areas(*areas.astype(np.int64)), names
