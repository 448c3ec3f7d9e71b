"""What the data sets check when they read their annotations, and when they load an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmpretrain.datasets import BaseDataset

from ...files import unreadable


class Annotation(NamedTuple):
    """One image: where it is annotated (for errors), its path in the data set, its label."""

    place: str
    image: str
    label: Any


class CheckedDataset(BaseDataset):
    """A :class:`mmpretrain.datasets.BaseDataset` whose labels are classes, and whose images exist.

    The classes are the ids 0 to C - 1, whose names ``classes`` may give: a list, or a file with
    one a line. Images are checked to be whole when they are loaded, which takes
    ``LoadImageFromFile(imdecode_backend='pillow')``: OpenCV decodes the first part of a truncated
    JPEG without a word.

    Args:
        ann_file: Annotation file, below ``data_root`` unless it is absolute.
        kwargs: Of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        FileNotFoundError: The annotation file, or an image that it names, is missing.
        ValueError: A malformed annotation, or a label outside [0, C): names file and place. When
            an image is loaded: it is damaged or no image; names it.
    """

    def read_annotations(self, path: Path) -> Iterator[Annotation]:
        """Every image of an annotation file, labels as they stand there."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict]:
        samples = []
        num_classes = len(self.metainfo['classes'])
        for place, image, label in self.read_annotations(Path(self.ann_file)):
            if type(label) is not int or not 0 <= label < num_classes:
                raise ValueError(f'{place}: label {label!r} is not a class in [0, {num_classes})')
            path = os.path.join(self.img_prefix, image)
            try:
                os.stat(path)
            except FileNotFoundError:
                raise FileNotFoundError(f'{path} is missing, an image of {place}') from None
            except OSError as error:
                raise unreadable(path, error) from error
            samples.append(dict(img_path=path, gt_label=label))
        if not samples:
            raise ValueError(f'{self.ann_file} names no image')
        return samples

    def prepare_data(self, idx: int) -> Any:
        try:
            return super().prepare_data(idx)
        except (OSError, SyntaxError) as error:
            path = self.get_data_info(idx)['img_path']
            raise ValueError(
                f'{path}: truncated, damaged or not an image ({error}); get it again'
            ) from error
