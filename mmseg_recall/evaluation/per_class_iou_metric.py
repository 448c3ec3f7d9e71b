"""mmseg's IoUMetric with per-class scalars and the means that average per image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from ..datasets.files import write_atomically
from . import areas as A

PER_CLASS = {'IoU': A.iou, 'Acc': A.accuracy, 'Precision': A.precision, 'F1': A.f1}


@METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """IoUMetric that also returns each class's values, and fine-grained means, as scalars.

    What IoUMetric returns (aAcc, mIoU, mAcc, ...) is unchanged. Added, all in per cent:

    - ``IoU/road``, ``Acc/road``, ``Precision/road``, ``F1/road`` for each class; NaN where a
      class has nothing to be scored by (see :mod:`mmseg_recall.evaluation.areas`).
    - ``mPrecision``, ``mF1``: their means over the classes.
    - ``mIoU_I`` and ``mIoU_C``: mean over images, and over classes of the mean over images;
      ``mIoU_I5`` and ``mIoU_C5`` are their means over the worst 5 per cent.

    Args:
        worst: Per cent of the lowest values, each in (0, 100], that ``mIoU_I<q>`` and
            ``mIoU_C<q>`` average.
        areas_file: Write the areas of each image to this ``.npz`` (arrays intersect, predicted,
            label: (images, C) int64; classes), from which every metric can be computed again.
        kwargs: Of mmseg's IoUMetric.

    Raises:
        ValueError: A value of ``worst`` outside (0, 100].

    Example:
        >>> val_evaluator = dict(type='PerClassIoUMetric', iou_metrics=['mIoU'])

    Source: Wang et al. 2023, "Revisiting Evaluation Metrics for Semantic Segmentation".
    """

    def __init__(
        self, worst: Sequence[float] = (5,), areas_file: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not all(0 < percent <= 100 for percent in worst):
            raise ValueError(f'worst must be percentages in (0, 100], got {list(worst)}')
        self.worst = worst
        self.areas_file = areas_file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Metrics in per cent from the areas of each image."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        intersect, _, predicted, label = (
            # Summed as integers: float32 sums are inexact beyond 2**24 pixels.
            torch.stack(column).numpy().astype(np.int64)
            for column in zip(*results, strict=True)
        )
        images = A.Areas(intersect, predicted, label)
        classes = list(self.dataset_meta['classes'])
        if self.areas_file is not None:
            save_areas(Path(self.areas_file), images, classes)
        total = A.Areas(*(area.sum(axis=0) for area in images))
        added = {
            f'{name}/{label}': value
            for name, function in PER_CLASS.items()
            for label, value in zip(classes, function(total), strict=True)
        }
        added |= {'mPrecision': A.mean(A.precision(total)), 'mF1': A.mean(A.f1(total))}
        added |= fine_grained(images, self.worst)
        if self.nan_to_num is not None:
            added = {k: self.nan_to_num if np.isnan(v) else v for k, v in added.items()}
        added = {name: round(float(100 * value), 2) for name, value in added.items()}
        return metrics | {name: value for name, value in added.items() if name not in metrics}


def fine_grained(images: A.Areas, worst: Sequence[float]) -> dict[str, float]:
    """``mIoU_I``, ``mIoU_C`` and their worst-q% means, in [0, 1], from the areas of each image."""
    values = {'mIoU_I': A.image_level_miou(images), 'mIoU_C': A.class_level_miou(images)}
    for percent in worst:
        values[f'mIoU_I{percent:g}'] = A.image_level_miou(images, percent)
        values[f'mIoU_C{percent:g}'] = A.class_level_miou(images, percent)
    return values


def save_areas(path: Path, images: A.Areas, classes: list[str]) -> None:
    """Write the areas of each image, (images, C), and the class names to an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, classes=np.array(classes), **images._asdict())
    write_atomically(path, buffer.getvalue())


def load_areas(path: Path) -> tuple[A.Areas, list[str]]:
    """Read what :func:`save_areas` wrote."""
    with np.load(path) as data:
        return A.Areas(*(data[name] for name in A.Areas._fields)), data['classes'].tolist()
