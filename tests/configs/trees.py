"""Tiny dataset trees in the layout that a config names, and overrides that shrink the config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmseg.registry import DATASETS
from PIL import Image

IMAGES = 4
WIDTH, HEIGHT = 64, 32


def write_tree(cfg: Config, root: Path) -> None:
    """Write images, labels and class counts for every split of ``cfg``, below ``root``."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset_class = DATASETS.get(dataset.type)
        empty = dataset_class(lazy_init=True)
        classes = empty.metainfo['classes']
        for index in range(IMAGES):
            label = rng.integers(len(classes), size=(HEIGHT // 8, WIDTH // 8)).astype(np.uint8)
            label = label.repeat(8, axis=0).repeat(8, axis=1)
            if empty.reduce_zero_label:
                label += 1
            label[0] = 0 if empty.reduce_zero_label else 255
            image = rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            prefix = dataset.data_prefix
            _save(root / prefix.img_path / f'{index}{empty.img_suffix}', image)
            _save(root / prefix.seg_map_path / f'{index}{empty.seg_map_suffix}', label)
    counts = {'classes': list(classes), 'pixels': [1000] * len(classes)}
    (root / 'class_counts.json').write_text(json.dumps(counts))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def shrink(cfg: Config, root: Path, work_dir: Path) -> None:
    """Make ``cfg`` train one iteration of two small crops of the tree at ``root``."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    cfg.class_counts = str(root / 'class_counts.json')
    cfg.model.backbone.init_cfg = None
    cfg.model.data_preprocessor.size = (HEIGHT, WIDTH)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = str(root)
        for transform in loader.dataset.pipeline:
            _shrink_transform(transform)


def _shrink_transform(transform: ConfigDict) -> None:
    if 'scale' in transform:
        transform.scale = (WIDTH, HEIGHT)
    if 'crop_size' in transform:
        transform.crop_size = (HEIGHT, WIDTH)
