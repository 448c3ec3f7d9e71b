"""iNaturalist 2018 from its official annotation files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mmpretrain.registry import DATASETS

from ...files import read_whole
from .checked import Annotation, CheckedDataset


@DATASETS.register_module()
class INaturalist2018Dataset(CheckedDataset):
    """iNaturalist 2018: 8,142 species, 437,513 training and 24,426 validation images.

    ``ann_file`` is one of the official ``train2018.json`` and ``val2018.json``: lists ``images``
    (``id``, ``file_name`` below ``data_prefix``) and ``annotations`` (``image_id``,
    ``category_id``), one an image.

    Args:
        kwargs: Of :class:`CheckedDataset`.

    Raises:
        FileNotFoundError: See :class:`CheckedDataset`.
        ValueError: See there; an image without annotation, or with several.

    Example:
        >>> dataset = INaturalist2018Dataset(ann_file='val2018.json', lazy_init=True)
        >>> len(dataset.metainfo['classes'])
        8142

    Source: Van Horn et al. 2018, "The iNaturalist Species Classification and Detection Dataset".
    """

    METAINFO: ClassVar[dict] = dict(classes=tuple(str(c) for c in range(8142)))

    def read_annotations(self, path: Path) -> Iterator[Annotation]:
        try:
            content = json.loads(read_whole(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{path} is not JSON: {error}') from error
        files = {}
        for place, image in _entries(content, 'images', ('id', 'file_name'), path):
            if image['id'] in files:
                raise ValueError(f'{place}: id {image["id"]} is that of an image before')
            files[image['id']] = image['file_name']
        labelled = set()
        for place, entry in _entries(content, 'annotations', ('image_id', 'category_id'), path):
            image_id = entry['image_id']
            if image_id not in files:
                raise ValueError(f'{place}: image_id {image_id!r} is not among the images')
            if image_id in labelled:
                raise ValueError(f'{place}: image_id {image_id!r} has an annotation before')
            labelled.add(image_id)
            yield Annotation(place, files[image_id], entry['category_id'])
        unlabelled = files.keys() - labelled
        if unlabelled:
            raise ValueError(
                f'{path}: {len(unlabelled)} images have no annotation, such as '
                f'{files[next(iter(unlabelled))]}'
            )


def _entries(
    content: object, name: str, keys: tuple[str, ...], path: Path
) -> Iterator[tuple[str, dict]]:
    """Each entry of a list of the file, with its place there."""
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f'{path} must hold an object with a list "{name}"')
    for index, entry in enumerate(entries):
        place = f'{path}, {name}[{index}]'
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), (int, str)) for key in keys
        ):
            raise ValueError(f'{place}: expected {" and ".join(keys)}, got {entry!r:.100}')
        yield place, entry
