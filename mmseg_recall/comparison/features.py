"""Features of a frozen backbone, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from rich.progress import track
from torch import Tensor

from ..config import segmentor
from .identity import differences, digest

# What brings logits back to the size of the label.
SIZES = ('img_shape', 'ori_shape', 'pad_shape', 'padding_size', 'img_padding_size')


class Item(NamedTuple):
    """What a head is trained or tested with.

    Attributes:
        features: (C, h, w) of each output of backbone and neck, float16.
        label: (1, H, W), uint8 or int32.
        sizes: Metainfo of the image.
    """

    features: list[Tensor]
    label: Tensor
    sizes: dict[str, Any]

    def sample(self) -> SegDataSample:
        """The label as a head takes it."""
        label = PixelData(data=self.label.long())
        return SegDataSample(gt_sem_seg=label, metainfo=self.sizes)


def load_features(cfg: Config, split: str, folder: Path) -> list[Item]:
    """Features of a dataset, from their file or, the first time, computed and written to it.

    Training images go through their pipeline ``cfg.frozen_features.views`` times, with the
    seeds 0, 1, ...; all others once. The backbone is in evaluation mode.

    Args:
        cfg: A config of mmseg with ``frozen_features``.
        split: 'train', 'val' or 'test'.
        folder: Of the files; a file's name is a hash of all that the features depend on.

    Returns:
        One item an image and view, memory-mapped.

    Raises:
        ValueError: The file is truncated or damaged, or holds features of another config.
    """
    views = cfg.frozen_features.views if split == 'train' else 1
    made_from = _made_from(cfg, split, views)
    path = folder / f'{split}-{digest(made_from)}.pt'
    if not path.is_file():
        content = {'made_from': json.dumps(made_from), 'items': _compute(cfg, split, views)}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Too large to be written from memory by write_atomically.
        temporary = path.with_suffix(f'.{os.getpid()}.tmp')
        torch.save(content, temporary)
        os.replace(temporary, path)
    return _read(path, made_from)


def _made_from(cfg: Config, split: str, views: int) -> dict[str, Any]:
    model = segmentor(cfg.to_dict()['model'])
    made_from = {name: model.get(name) for name in ('data_preprocessor', 'backbone', 'neck')}
    made_from |= {'dataset': cfg[f'{split}_dataloader'].to_dict()['dataset'], 'views': views}
    checkpoint = Path(str(((model['backbone'] or {}).get('init_cfg') or {}).get('checkpoint')))
    if checkpoint.is_file():
        made_from['checkpoint'] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return json.loads(json.dumps(made_from, default=str))


def _read(path: Path, made_from: dict[str, Any]) -> list[Item]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        known = json.loads(content['made_from'])
        items = [Item(*item) for item in content['items']]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'{path}: the file of features is truncated or damaged ({reason}); remove it to '
            'compute them again'
        ) from error
    except Exception as error:  # of torch, about what is no file of tensors
        raise ValueError(f'{path}: no file of features; remove it') from error
    if known != made_from:
        theirs, ours = differences([known, made_from])
        raise ValueError(
            f'{path} holds the features of another config: of {theirs}, not of {ours}; remove it'
        )
    return items


@torch.no_grad()
def _compute(cfg: Config, split: str, views: int) -> list[tuple[list[Tensor], Tensor, dict]]:
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    set_random_seed(0)
    model = MODELS.build(segmentor(cfg.model))
    model.init_weights()
    model.eval()
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    items = []
    for view in range(views):
        set_random_seed(view)
        for index in track(range(len(dataset)), f'Features for {split}, view {view + 1}'):
            one = dataset[index]
            batch = {'inputs': [one['inputs']], 'data_samples': [one['data_samples']]}
            batch = model.data_preprocessor(batch, training=split == 'train')
            features = [level[0].half() for level in model.extract_feat(batch['inputs'])]
            (sample,) = batch['data_samples']
            label = sample.gt_sem_seg.data
            label = label.to(torch.uint8 if label.max() < 256 else torch.int32)
            sizes = {k: v for k, v in sample.metainfo.items() if k in SIZES}
            items.append((features, label, sizes))
    return items
