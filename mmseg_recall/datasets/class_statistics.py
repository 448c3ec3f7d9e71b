"""Pixels of each class in a config's training set, which the statistics-balanced losses read."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePath

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from .files import write_atomically
from .labels import count_pixels, label_sources, leaf_datasets

EVALUATION_WORDS = {'val', 'valid', 'validation', 'test', 'testing'}


def class_statistics(config: Config, allow_evaluation_files: bool = False) -> dict:
    """Count the pixels of each class in the training dataset of a config.

    Labels are loaded by the dataset's own pipeline and label mapping, without augmentation.
    Statistics of the validation or test split would leak the labels that the model is judged on,
    so a training dataset that reads such files is refused.

    Args:
        config: An mmseg config with ``train_dataloader``.
        allow_evaluation_files: Count all the same where training uses evaluation files on purpose
            (a final model trained on train and val, say).

    Returns:
        ``classes`` (names), ``pixels`` (int, one a class), ``images`` (items of one epoch),
        ``config`` (file name) and ``dataset`` (type), ready for JSON.

    Raises:
        FileNotFoundError: A label is missing.
        ValueError: A label is damaged or has unknown ids, or the training dataset reads
            evaluation files.

    Source: the counts N_c of Eq. 2 of "Striking the Right Balance: Recall Loss for Semantic
    Segmentation".
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    if not allow_evaluation_files:
        _refuse_evaluation_files(config, dataset)
    return dict(
        classes=list(dataset.metainfo['classes']),
        pixels=count_pixels(dataset, 'Counting pixels').tolist(),
        images=len(dataset),
        config=os.path.basename(config.filename or ''),
        dataset=config.train_dataloader.dataset.type,
    )


def write_class_statistics(
    config: Config, out: str | Path | None = None, allow_evaluation_files: bool = False
) -> Path:
    """Write :func:`class_statistics` as a JSON file, atomically.

    Args:
        config: An mmseg config.
        out: File to write; by default the config's top-level ``class_counts``.
        allow_evaluation_files: See :func:`class_statistics`.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: See :func:`class_statistics`.
        ValueError: See there, or there is no ``out`` and the config has no ``class_counts``.
    """
    out = out or config.get('class_counts')
    if not isinstance(out, (str, Path)):
        raise ValueError('The config has no class_counts = FILE: name the file with --out')
    statistics = class_statistics(config, allow_evaluation_files)
    write_atomically(Path(out), (json.dumps(statistics, indent=1) + '\n').encode())
    return Path(out)


def _refuse_evaluation_files(config: Config, dataset) -> None:
    cure = 'Correct train_dataloader, or pass --allow-evaluation-files if this is what you train on'
    sources = label_sources(dataset)
    files = {os.path.realpath(source.label) for source in sources}
    for loader in ('val_dataloader', 'test_dataloader'):
        shared = files & _label_files(config.get(loader))
        if shared:
            raise ValueError(
                f'{len(shared)} of the {len(files)} training labels are also read by {loader}, '
                f'such as {min(shared)}. {cure}.'
            )
    for part in leaf_datasets(dataset):
        for name in _split_names(part):
            words = EVALUATION_WORDS.intersection(word.lower() for word in name.parts)
            if words:
                raise ValueError(
                    f'The training dataset reads {name}, by its name the {min(words)} split. '
                    f'{cure}.'
                )


def _label_files(dataloader: dict | None) -> set[str]:
    if not dataloader:
        return set()
    try:
        dataset = DATASETS.build(dataloader['dataset'])
    except FileNotFoundError:
        # An evaluation split that is not on this machine shares no file with training.
        return set()
    return {os.path.realpath(source.label) for source in label_sources(dataset)}


def _split_names(dataset) -> set[PurePath]:
    # The end of the label folder's path, and what is below it: further up, a folder called "test"
    # says nothing about the split.
    folder = PurePath(dataset.data_prefix['seg_map_path'])
    names = {PurePath(dataset.ann_file).with_suffix('')} if dataset.ann_file else set()
    for source in label_sources(dataset):
        below = PurePath(os.path.relpath(source.label, folder)).parent
        names.add(PurePath(*folder.parts[-2:], below))
    return names
