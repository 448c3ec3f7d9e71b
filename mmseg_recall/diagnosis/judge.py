"""The diagnosis of a config: measured, judged, and what to try with the evidence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from ..datasets.class_statistics import build_dataset
from ..datasets.labels import (
    NotJudged,
    distinct_items,
    ignore_index,
    leaf_datasets,
    tally,
)
from ..datasets.splits import pictures
from ..evaluation.groups import group_images
from . import faults as F
from .advice import RARE, Regime, is_balanced, nearest_regime, worth_trying
from .checkpoint import Free, judge_checkpoint
from .measure import chance_in_batch, draw_crops, gini


class ClassRow(NamedTuple):
    """One class, as training will see it."""

    name: str
    pixels: float
    """Share of the pixels that are not ignored."""
    images: float
    """Share of the images that show it."""
    objects: float | None
    """Connected components in the crops of one epoch."""
    size: float | None
    """Pixels of the median one."""
    chance: float | None
    """That a batch shows it; None where labels that cannot be read keep crops from being drawn."""
    steps: float | None
    """Expected until a batch shows it once; None where no crop did."""


class Diagnosis(NamedTuple):
    """All that :func:`diagnose` found."""

    config: str
    images: int
    ignored: float
    gini: float
    iterations: int | None
    batch_size: int
    crops: int
    """That were drawn for the chances."""
    classes: list[ClassRow]
    faults: list[F.Fault]
    verdict: str
    regime: Regime | None
    """The measured one that is nearest."""
    is_near: bool
    advice: list[dict[str, Any]]
    trained: list[str]
    """What a checkpoint says: the rule of thumb, and what is free."""
    curve: dict[str, float]
    """Its metrics under adjusted logits or other thresholds, by name, as the test prints them."""
    offsets: Free | None
    """What an offset for each class gains it; None without a checkpoint, or of one channel."""


def diagnose(cfg: Config, checkpoint: str | None = None, groups: str | None = None) -> Diagnosis:
    """Judge a config's data before training.

    Args:
        cfg: A config of mmseg with a training dataset.
        checkpoint: Of a model trained by it, to score with post-hoc logit adjustment.
        groups: Which test images belong together, as
            :func:`mmseg_recall.evaluation.groups.group_images` takes it; None if none do.

    Raises:
        FileNotFoundError: The training dataset has no files.
        ValueError: It cannot be built; ``groups`` is neither a file of groups nor an expression.
    """
    if groups is not None:
        group_images(groups, ())  # before minutes of work, not after them
    dataset = build_dataset(cfg, 'train_dataloader')
    items, times = distinct_items(dataset)
    found, errors = F.read_all(items, 'Reading labels')
    count = tally(dataset, items, times, found)
    faults = [*F.of_files(errors)]
    if not errors:
        faults += F.of_classes(count)
    faults += F.of_heads(cfg, count.classes, ignore_index(leaf_datasets(dataset)[0]))
    faults += _of_evaluation(cfg, items)
    shows, objects, sizes = np.full((3, len(count.classes)), np.nan)
    drawn = 0
    if not errors:
        crops = draw_crops(dataset, len(count.classes))
        shows, objects, sizes = crops.shows, crops.objects, crops.median_size
        drawn = crops.number
        ids = {*np.flatnonzero(count.pixels).tolist(), *count.others}
        faults += F.of_transforms(items, ids, crops.ids)
    batch_size = cfg.train_dataloader.get('batch_size', 1)
    chance = chance_in_batch(shows, batch_size)
    shares = count.pixels / max(count.pixels.sum(), 1)
    rows = [
        ClassRow(
            name,
            float(shares[c]),
            float(count.images[c] / count.items),
            _known(objects[c]),
            _known(sizes[c]),
            _known(chance[c]),
            float(1 / chance[c]) if chance[c] > 0 else None,
        )
        for c, name in enumerate(count.classes)
    ]
    iterations = _iterations(cfg, count.items, batch_size)
    all_pixels = max(count.pixels.sum() + sum(count.others.values()), 1)
    balanced = is_balanced(shares.tolist())
    regime, is_near, advice = None, False, []
    if not balanced:
        epochs = (iterations or count.items) * batch_size / count.items
        regime, is_near = nearest_regime(min(s for s in shares if s > 0), gini(shares), epochs)
        advice = worth_trying(regime)
    trained = judge_checkpoint(cfg, checkpoint, count, groups) if checkpoint else None
    return Diagnosis(
        config=Path(cfg.filename or 'config').name,
        images=count.items,
        ignored=sum(count.others.values()) / all_pixels,
        gini=gini(shares),
        iterations=iterations,
        batch_size=batch_size,
        crops=drawn,
        classes=rows,
        faults=faults,
        verdict=_verdict(rows, faults, balanced, iterations),
        regime=regime,
        is_near=is_near,
        advice=advice,
        trained=trained.sentences if trained else [],
        curve=trained.curve if trained else {},
        offsets=trained and trained.offsets,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _verdict(
    rows: list[ClassRow], faults: list[F.Fault], balanced: bool, iterations: int | None
) -> str:
    present = [row for row in rows if row.pixels > 0]
    said = []
    if faults:
        said.append('Mend the faults first: no loss can.')
    if balanced:
        said.append(
            'Imbalance is not your problem: the classes that the labels have differ by less than a '
            'factor of 5 in pixels. Train longer, or a larger model, before another loss.'
        )
        return ' '.join(said)
    rare = [row.name for row in present if row.pixels < RARE]
    if rare:
        said.append(f'{len(rare)} of {len(rows)} classes have below 1% of the pixels.')
    else:
        said.append('The classes are unequal, and none has below 1% of the pixels.')
    unseen = [
        row.name
        for row in present
        if iterations and row.chance is not None and row.chance * iterations < 10
    ]
    if unseen:
        said.append(
            f'Fewer than 10 batches of the {iterations} will show {", ".join(unseen)}: more images '
            'of them, or a longer training, before another loss.'
        )
    return ' '.join(said)


def _iterations(cfg: Config, images: int, batch_size: int) -> int | None:
    train = cfg.get('train_cfg') or {}
    if 'max_iters' in train:
        return train['max_iters']
    epochs = train.get('max_epochs')
    return None if epochs is None else epochs * math.ceil(images / batch_size)


def _of_evaluation(cfg: Config, items: list[Any]) -> list[F.Fault]:
    """What is wrong with the validation and test data, and what they share with training."""
    found: list[F.Fault] = []
    train = None
    seen = []
    for loader in ('val_dataloader', 'test_dataloader'):
        given = cfg.get(loader)
        described = given and given['dataset'].get('data_prefix'), given and given['dataset']
        if not given or described in seen:
            continue
        seen.append(described)
        try:
            evaluated, _ = distinct_items(build_dataset(cfg, loader))
        except (OSError, ValueError) as error:
            if not isinstance(error, NotJudged):
                found.append(F.Fault(str(error), loader, 'correct its data_root and data_prefix'))
            continue
        _, errors = F.read_all(evaluated, f'Reading labels of {loader}')
        found += F.of_files(errors)
        train = train or pictures(items, 'Comparing images')
        found += F.of_splits(train, pictures(evaluated, f'Comparing {loader}'), loader)
    return found
