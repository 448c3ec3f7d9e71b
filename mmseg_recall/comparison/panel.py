"""Small pieces of test images around rare objects, chosen by a rule, to look at side by side.

The rule reads the truth only, so it is the same for every loss: for each of the rarest classes of
the test set (fewest pixels, at least one), but never for the most frequent, the image with most
pixels of it, and there a window of a third of the image's width and height around its largest
connected region. Of fewer such classes than pieces, each has several images.
"""

from __future__ import annotations

import base64
import os
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from ..config import datasets
from ..evaluation import Areas

NUM_CROPS = 3
MAX_SIDE = 320
LOADING = ('LoadImageFromFile', 'LoadAnnotations')


def choose_images(label: np.ndarray, num_crops: int = NUM_CROPS) -> list[tuple[int, int]]:
    """Pairs (class, image) by the rule above; no image twice.

    Example:
        >>> choose_images(np.array([[9, 0, 1], [9, 2, 0]]), num_crops=2)
        [(2, 0), (1, 1)]
        >>> choose_images(np.array([[9, 1], [9, 2], [9, 0]]))  # the background is not rare
        [(1, 1), (1, 0)]
    """
    total = label.sum(axis=0)
    rare = sorted(np.flatnonzero(total), key=lambda c: (total[c], c))[:-1]
    chosen: list[tuple[int, int]] = []
    for c in islice(cycle(rare), num_crops):
        free = [i for i in range(len(label)) if i not in [image for _, image in chosen]]
        if free:
            image = max(free, key=lambda i: (label[i, c], -i))
            if label[image, c]:
                chosen.append((int(c), image))
    return chosen


def window_around(mask: np.ndarray) -> tuple[slice, slice]:
    """A third of the image around the largest connected region of ``mask``, inside the image."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    x, y = centres[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
    slices = []
    for centre, size in zip((y, x), mask.shape, strict=True):
        side = -(-size // 3)
        start = min(max(0, round(centre - side / 2)), size - side)
        slices.append(slice(start, start + side))
    return slices[0], slices[1]


def image_names(cfg: Config) -> list[str]:
    """Stems of the test images, in the order of the data set."""
    dataset = _build(cfg)
    paths = (Path(dataset.get_data_info(index)['img_path']) for index in range(len(dataset)))
    return [os.fsencode(path.stem).decode(errors='replace') for path in paths]


def _build(cfg: Config) -> Any:
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return DATASETS.build(cfg.test_dataloader.dataset)


def make_panel(
    cfg: Config, areas: Areas, classes: list[str], predictions: Path
) -> list[dict[str, Any]]:
    """The pieces of one run.

    Returns:
        For each piece: class, image (file name), box (x0, y0, x1, y1, pixels), and as base64 the
        picture (JPEG), truth and prediction (PNG of class indices). None where images came or went
        since the test.
    """
    dataset = _build(cfg)
    if len(dataset) != len(areas.label):
        return []  # not the images that were tested, which the areas of each image say
    pipeline = next(datasets(cfg.test_dataloader.dataset))['pipeline']
    load = Compose([step for step in pipeline if step['type'] in LOADING])
    panel = []
    for c, index in choose_images(areas.label):
        sample = load(dataset.get_data_info(index))
        path, truth = Path(sample['img_path']), sample['gt_seg_map']
        # Not by its name: OpenCV dies of one that is not UTF-8.
        data = np.fromfile(predictions / f'{path.stem}.png', np.uint8)
        prediction = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
        window = window_around(truth == c)
        stride = -(-max(s.stop - s.start for s in window) // MAX_SIDE)
        picture = cv2.resize(
            sample['img'][window], None, fx=1 / stride, fy=1 / stride, interpolation=cv2.INTER_AREA
        )
        rows, columns = window
        panel.append(
            {
                'class': classes[c],
                'image': os.fsencode(path.name).decode(errors='replace'),
                'box': [columns.start, rows.start, columns.stop, rows.stop],
                'picture': _encode('.jpg', picture),
                'truth': _encode('.png', truth[window][::stride, ::stride].astype(np.uint8)),
                'prediction': _encode('.png', prediction[window][::stride, ::stride]),
            }
        )
    return panel


def _encode(extension: str, image: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(extension, image)[1].tobytes()).decode()
