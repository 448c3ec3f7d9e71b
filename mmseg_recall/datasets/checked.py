"""What the plugin's datasets check when they list their files."""

from __future__ import annotations

import os
import stat

from mmseg.datasets import BaseSegDataset

from ..files import unreadable
from .convert import converters


class CheckedSegDataset(BaseSegDataset):
    """A :class:`mmseg.datasets.BaseSegDataset` whose listed files all exist and are not empty.

    Stock mmseg takes an image without a label for granted and fails in the middle of training, in
    a worker, at the first batch that draws it. Contents are the business of
    :class:`mmseg_recall.hooks.CheckDatasetHook`.

    Raises:
        FileNotFoundError: The image folder is missing or has no image, or a label is missing.
        ValueError: An image or label has no bytes, or is nothing that can be read.
    """

    def load_data_list(self) -> list[dict]:
        folder = self.data_prefix['img_path']
        if not os.path.isdir(folder):
            raise FileNotFoundError(f'No image folder {folder}. {self._cure()}')
        try:
            samples = super().load_data_list()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(error.filename, error) from error
        if not samples:
            raise FileNotFoundError(f'No {self.img_suffix} images in {folder}. {self._cure()}')
        for sample in samples:
            for kind in ('img_path', 'seg_map_path'):
                if kind in sample:
                    _check_file(sample[kind], sample['img_path'])
        return samples

    def _cure(self) -> str:
        name = type(self).__module__.rsplit('.', 1)[-1].replace('_', '-')
        where = 'Set data_root to where the dataset lies'
        if name not in converters():
            return f'{where}; docs/datasets.md says where it comes from'
        out = self.data_root or f'data/{name}'
        return f'{where}, or make it: python tools/convert_dataset.py {name} RAW --out {out}'


def _check_file(path: str, image: str) -> None:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        what = 'The image is missing' if path == image else f'The label of {image} is missing'
        raise FileNotFoundError(f'{what}: {path}') from None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f'{path}: not a file; put the file in its place')
    if state.st_size == 0:
        raise ValueError(f'{path}: the file is empty (0 bytes); get or convert it again')
