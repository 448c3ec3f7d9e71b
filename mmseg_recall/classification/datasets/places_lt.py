"""Places-LT from its official annotation files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mmpretrain.registry import DATASETS

from ...files import read_whole
from .checked import Annotation, CheckedDataset


@DATASETS.register_module()
class PlacesLTDataset(CheckedDataset):
    """Places-LT: 365 scenes, 62,500 training images, 4,980 to 5 a class.

    ``ann_file`` is one of the official ``Places_LT_{train,val,test}.txt``, whose lines are the
    path of an image below ``data_prefix`` and the id of its class, such as
    ``a/airfield/00000001.jpg 0``.

    Args:
        kwargs: Of :class:`CheckedDataset`.

    Raises:
        FileNotFoundError: See :class:`CheckedDataset`.
        ValueError: See there.

    Example:
        >>> len(PlacesLTDataset(ann_file='Places_LT_val.txt', lazy_init=True).metainfo['classes'])
        365

    Source: Liu et al. 2019, "Large-Scale Long-Tailed Recognition in an Open World".
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple(str(c) for c in range(365)))

    def read_annotations(self, path: Path) -> Iterator[Annotation]:
        try:
            lines = read_whole(path).decode().splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f'{path} is not a text file: {error}') from error
        for number, line in enumerate(lines, start=1):
            place = f'{path}, line {number}'
            image, _, label = line.strip().rpartition(' ')
            if not image or not label.isdecimal():
                raise ValueError(f'{place}: expected "PATH LABEL", got {line!r:.100}')
            yield Annotation(place, image, int(label))
