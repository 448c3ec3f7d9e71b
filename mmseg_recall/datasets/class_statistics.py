"""Pixels of each class in a config's training set, which the statistics-balanced losses read."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path, PurePath
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from ..config import Component, datasets, type_name
from ..files import write_atomically
from .labels import count_classes, distinct_items, items, leaf_datasets
from .splits import pictures, shared

EVALUATION_WORDS = {'val', 'valid', 'validation', 'test', 'testing'}


def class_statistics(config: Config, allow_evaluation_files: bool = False) -> dict:
    """Count the pixels of each class in the training dataset of a config.

    Labels are loaded by the dataset's own pipeline, up to what changes ids: as they are trained,
    but for crops and the like.
    Statistics of the validation or test split would leak the labels that the model is judged on,
    so a training dataset that shows such images, by their pixels, is refused. Where the config has
    none to compare with, one that is named for evaluation is.

    Args:
        config: An mmseg config with ``train_dataloader``.
        allow_evaluation_files: Count all the same where training uses evaluation images on purpose
            (a final model trained on train and val, say).

    Returns:
        ``classes`` (names), ``pixels`` (int, one a class), ``class_images`` (items that show the
        class), ``ignored`` (pixels), ``images`` (items of one epoch), ``warnings``, ``config``
        (file name) and ``dataset`` (type), ready for JSON.

    Raises:
        FileNotFoundError: A label is missing.
        ValueError: The training dataset cannot be built, a label is damaged or has unknown ids, or
            the training dataset shows evaluation images.

    Source: the counts N_c of Eq. 2 of "Striking the Right Balance: Recall Loss for Semantic
    Segmentation".
    """
    dataset = build_dataset(config, 'train_dataloader')
    if not allow_evaluation_files:
        _refuse_evaluation_images(config, dataset)
    count = count_classes(dataset, 'Counting pixels')
    return dict(
        classes=count.classes,
        pixels=count.pixels.tolist(),
        class_images=count.images.tolist(),
        ignored=sum(count.others.values()),
        images=count.items,
        warnings=count.warnings,
        config=os.path.basename(config.filename or ''),
        dataset=type(dataset).__name__,
    )


def build_dataset(config: Config, loader: str) -> Any:
    """Build the dataset of a loader.

    Raises:
        FileNotFoundError: Its files are missing.
        ValueError: It cannot be built; either names the loader and where the files should be.
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    if not config.get(loader) or 'dataset' not in config[loader]:
        raise ValueError(f'the config has no {loader} with a dataset')
    given = config[loader].dataset
    try:
        dataset = DATASETS.build(given)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()  # one that was told to be lazy
        return dataset
    except Exception as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        # What numpy says where mmengine packs a list of nothing.
        empty = 'need at least one array to concatenate' in str(error)
        reason = 'no image with a name of its suffix is there' if empty else error
        places = '; '.join(map(_place, datasets(given)))
        raise kind(f'The dataset of {loader} cannot be built, {places}: {reason}') from error


def _place(dataset: Component) -> str:
    keys = ('data_root', 'data_prefix', 'ann_file', 'img_suffix')
    given = ', '.join(f'{key}={dataset[key]!r}' for key in keys if dataset.get(key))
    return f'{type_name(dataset)}({given})'


def write_class_statistics(
    config: Config, out: str | Path | None = None, allow_evaluation_files: bool = False
) -> Path:
    """Write :func:`class_statistics` as JSON to ``out``, or where ``class_counts`` says.

    Raises:
        FileNotFoundError: See :func:`class_statistics`.
        ValueError: See there, or there is no ``out`` and the config has no ``class_counts``.
    """
    out = out or config.get('class_counts')
    if not isinstance(out, (str, Path)):
        raise ValueError('class_counts of the config names no file: name one with --out')
    statistics = class_statistics(config, allow_evaluation_files)
    write_atomically(Path(out), (json.dumps(statistics, indent=1) + '\n').encode())
    return Path(out)


def _refuse_evaluation_images(config: Config, dataset: Any) -> None:
    cure = (
        'Correct train_dataloader, or pass --allow-evaluation-files if this is what you train on.'
    )
    train = None
    for loader in ('val_dataloader', 'test_dataloader'):
        if not config.get(loader):
            continue
        try:
            evaluated, _ = distinct_items(build_dataset(config, loader))
        except (FileNotFoundError, ValueError) as error:
            warnings.warn(
                f'Not compared with {loader}, which cannot be read: {error}', stacklevel=1
            )
            continue
        train = train or pictures(distinct_items(dataset)[0], 'Comparing images')
        equal = shared(train, pictures(evaluated, f'Comparing {loader}'))
        if equal:
            raise ValueError(
                f'{len(equal)} of the images of {loader} are training images, such as '
                f'{equal[0][0]}, which is {equal[0][1]}. {cure}'
            )
    if train is None:
        _refuse_evaluation_names(dataset, cure)


def _refuse_evaluation_names(dataset: Any, cure: str) -> None:
    """Where there are no images to compare with, names are all that is left."""
    for name in _split_names(dataset):
        words = EVALUATION_WORDS.intersection(word.lower() for word in name.parts)
        if words:
            raise ValueError(
                f'The training dataset reads {name}, by its name the {min(words)} split, and the '
                f'config has no evaluation images to tell otherwise. {cure}'
            )


def _split_names(dataset: Any) -> set[PurePath]:
    names = set()
    for leaf in leaf_datasets(dataset):
        # The end of the label folder's path, and what is below it: further up, a folder called
        # "test" says nothing about the split.
        prefix = (getattr(leaf, 'data_prefix', None) or {}).get('seg_map_path')
        if getattr(leaf, 'ann_file', None):
            # Of an absolute path, too, only the end is the dataset's own.
            names.add(PurePath(*PurePath(leaf.ann_file).with_suffix('').parts[-2:]))
        paths = (item.paths.get('seg_map_path') for item in items(leaf))
        for path in filter(None, paths):
            folder = PurePath(prefix or os.path.dirname(path))
            below = PurePath(os.path.relpath(path, folder)).parent
            names.add(PurePath(*folder.parts[-2:], below))
    return names
