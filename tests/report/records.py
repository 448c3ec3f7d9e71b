"""Invented records with the shape of the paper's findings, to render and to test with."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmseg_recall.comparison.record import FORMAT, write_record

CLASSES = ('sky', 'building', 'road', 'tree', 'car', 'fence', 'pedestrian', 'bicycle', 'pole')
SHARE = np.array([0.2, 0.3, 0.3, 0.12, 0.05, 0.015, 0.008, 0.004, 0.003])
PIXELS = (SHARE * 10_000_000).astype(np.int64)
# How far accuracy of a rare class falls, and how much of its predictions are false.
LOSSES = {
    'CE': (0.75, 0.10),
    'SoftmaxFocal': (0.74, 0.10),
    'Recall': (0.45, 0.25),
    'InverseFrequency': (0.15, 0.75),
    'ClassBalanced': (0.12, 0.80),
    'SoftIoU': (0.60, 0.15),
    'LovaszSoftmax': (0.58, 0.15),
    'OHEM': (0.80, 0.12),
    'Dice': (0.65, 0.2),
}
# Not the paper's: the two are asked for by name.
OTHERS = {
    'InverseFrequency exponent=0.5': (0.30, 0.18),
    'PriorRecall exponent=0.5': (0.30, 0.30),
}
LOGGED = ('Recall', 'SoftmaxFocal', 'InverseFrequency', *OTHERS)
TAUS = (0.25, 0.5, 0.75, 1.0, 1.5)
TYPES = {'CE': 'CrossEntropyLoss'}


def record(
    loss: str,
    seed: int,
    dataset: str = 'CamVid',
    noise: float = 0.01,
    panel: bool = True,
    taus: tuple[float, ...] = (),
) -> dict[str, Any]:
    """One complete record; the numbers follow from the arguments alone."""
    generator = np.random.default_rng([seed, *loss.encode()])
    miss, false = {**LOSSES, **OTHERS}[loss]
    rare = np.linspace(0, 1, len(CLASSES))
    accuracy = np.clip(0.97 - miss * rare + generator.normal(0, noise, len(CLASSES)), 0, 1)
    intersect = (accuracy * PIXELS).astype(np.int64)
    predicted = (intersect * (1 + 3 * false * rare) + 100).astype(np.int64)
    iou = intersect / (predicted + PIXELS - intersect)
    metrics = {
        'aAcc': 100 * intersect.sum() / PIXELS.sum(),
        'mIoU': 100 * iou.mean(),
        'mAcc': 100 * (intersect / PIXELS).mean(),
        'mPrecision': 100 * (intersect / predicted).mean(),
        'mIoU_I': 90 * iou.mean(),
        'mIoU_C': 80 * iou.mean(),
        'mIoU_I5': 60 * iou.mean(),
        'mIoU_C5': 40 * iou.mean(),
    }
    for tau in taus:
        metrics[f'tau={tau:g}/mAcc'] = metrics['mAcc'] + 16 * tau
        metrics[f'tau={tau:g}/mIoU'] = metrics['mIoU'] + 10 * tau - 7 * tau**2
        metrics[f'tau={tau:g}/aAcc'] = metrics['aAcc'] - 3 * tau
    return {
        'format': FORMAT,
        'name': f'model_{loss.lower().replace(" ", "-")}_seed{seed}',
        'config_file': f'configs/{loss.lower()}/model.py',
        'config': f"model = dict(loss='{TYPES.get(loss, loss)}')\n",
        'seed': seed,
        'setup': {
            'loss': loss,
            'key': f'key-of-{dataset}',
            'model': 'DeepLabV3 ResNet-18',
            'dataset': dataset,
            'data_root': dataset.lower(),
            'schedule': '2000 iterations, batch 8',
            'iterations': 2000,
            'batch_size': 8,
        },
        'versions': {'python': '3.11', 'torch': '2.13.0'},
        'device': 'CPU',
        'status': 'complete',
        'checkpoint': {'rule': 'last', 'step': 2000},
        'classes': list(CLASSES),
        'palette': [[28 * c, 255 - 28 * c, (97 * c) % 256] for c in range(len(CLASSES))],
        'training_pixels': (PIXELS * 4).tolist(),
        'images': 50,
        'areas': {
            'intersect': intersect.tolist(),
            'predicted': predicted.tolist(),
            'label': PIXELS.tolist(),
        },
        'metrics': metrics,
        'seconds_per_iteration': 1.2 + 0.1 * false,
        'memory_mib': {'process': 900.0 + 10 * len(loss), 'gpu': None},
        'curves': _curves(loss, generator) if loss in LOGGED else None,
        'panel': _panel(generator) if panel else [],
    }


def _curves(loss: str, generator: np.random.Generator) -> dict[str, Any]:
    steps = list(range(50, 2001, 50))
    progress = np.linspace(0, 1, len(steps))
    exponent = {'InverseFrequency': 1, 'InverseFrequency exponent=0.5': 0.5}.get(loss)
    curves: dict[str, Any] = {'iterations': steps}
    for quantity in ('weight', 'recall', 'pixel_share'):
        curves[quantity] = {}
        for c, name in enumerate(CLASSES):
            hard = 0.05 + 0.9 * c / len(CLASSES)
            slope = 0.4 if loss == 'SoftmaxFocal' else 0.8
            values = hard * (1 - slope * progress) + generator.normal(0, 0.01, len(steps))
            if quantity == 'pixel_share':
                values = SHARE[c] * generator.uniform(0.5, 1.5, len(steps))
            elif quantity == 'weight' and exponent is not None:
                values = np.full(len(steps), SHARE[c] ** -exponent)
            curves[quantity][name] = [float(f'{v:.4g}') for v in values.clip(0.001)]
    curves['weight']['pole'][3] = None
    return curves


def _panel(generator: np.random.Generator) -> list[dict[str, Any]]:
    pieces = []
    for name in ('pole', 'bicycle'):
        truth = np.zeros((60, 80), dtype=np.uint8)
        truth[30:] = 2
        truth[10:50, 38:42] = CLASSES.index(name)
        truth[:5] = 255
        prediction = np.where(generator.random(truth.shape) < 0.1, 1, truth).astype(np.uint8)
        picture = np.stack([truth * 20] * 3, axis=-1)
        images = {'picture': ('.jpg', picture), 'truth': ('.png', truth)}
        images['prediction'] = ('.png', prediction)
        piece = {'class': name, 'image': f'{name}.png', 'box': [0, 0, 80, 60]}
        for key, (extension, image) in images.items():
            data = cv2.imencode(extension, image)[1].tobytes()
            piece[key] = base64.b64encode(data).decode()
        pieces.append(piece)
    return pieces


def write_records(folder: Path, losses=tuple(LOSSES), seeds=(0, 1, 2), **kwargs: Any) -> Path:
    """Write a record of each loss and seed into ``folder``."""
    for loss in losses:
        for seed in seeds:
            one = record(loss, seed, **kwargs)
            write_record(folder / f'{one["name"]}.json', one)
    return folder
