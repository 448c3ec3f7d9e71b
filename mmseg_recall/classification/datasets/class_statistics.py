"""Training images of each class of a config, which losses, hook and metric read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from ...files import write_atomically
from ..deferred_reweighting import count_labels


def write_class_statistics(config: Config, out: str | Path | None = None) -> Path:
    """Count the images of each class in a config's training set, and write them as JSON.

    The file has the form that :func:`mmseg_recall.losses.class_counts.load_class_counts` reads:
    ``pixels`` are images here.

    Args:
        config: An mmpretrain config with ``train_dataloader``.
        out: File to write; by default the config's top-level ``class_counts``.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: The annotation file or an image is missing.
        ValueError: There is no ``out`` and the config's ``class_counts`` is no file; the training
            set cannot be read or does not tell its labels.
    """
    out = out or config.get('class_counts')
    if not isinstance(out, (str, Path)):
        raise ValueError('class_counts of the config names no file: name one with --out')
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    statistics = dict(
        classes=list(dataset.metainfo['classes']),
        pixels=count_labels(dataset).tolist(),
        images=len(dataset),
        config=os.path.basename(config.filename or ''),
        dataset=type(dataset).__name__,
    )
    write_atomically(Path(out), (json.dumps(statistics, indent=1) + '\n').encode())
    return Path(out)
