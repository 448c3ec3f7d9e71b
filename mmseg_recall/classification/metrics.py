"""Accuracy over all images, and over classes with many, some and few training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from ..evaluation import Areas, save_areas
from ..evaluation.areas import areas_of
from ..evaluation.shots import FEW, MANY, shot_accuracies, shot_of
from ..losses.class_counts import ClassCountsSource, load_class_counts


@METRICS.register_module()
class ShotAccuracy(BaseMetric):
    """Top-1 accuracy over all images, and over the classes of each shot, in per cent.

        top1 = correct images / images
        many, medium, few = mean over the classes of the shot of (correct / images of the class)

    The mean over classes is that of Liu et al.; where each class has as many test images, as in
    Places-LT and iNaturalist 2018, it is the accuracy over the images of those classes. A class
    without a test image takes no part; a shot without a class is NaN.

    Args:
        class_counts: Training images of each class: a list, or the file that
            ``tools/class_statistics.py CONFIG`` writes.
        many: A class is 'many' with more training images than this.
        few: A class is 'few' with fewer than this.
        areas_file: Write how often each class was predicted, labelled, and both, to this ``.npz``.
        kwargs: Of mmengine's BaseMetric.

    Raises:
        ValueError: ``many`` below ``few``; counts that are none (see
            :func:`mmseg_recall.losses.class_counts.load_class_counts`), or of other classes than
            the data set's.

    Example:
        >>> metric = ShotAccuracy(class_counts=[200, 5])
        >>> for truth, predicted in ((0, 0), (0, 0), (1, 0), (1, 1)):
        ...     metric.process(None, [dict(gt_label=truth, pred_label=predicted)])
        >>> metric.dataset_meta = dict(classes=('cat', 'lynx'))
        >>> list(metric.evaluate(4).items())[:2]
        [('accuracy/top1', 75.0), ('accuracy/many', 100.0)]

    Source: Liu et al. 2019; Tables 4 and 5.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        class_counts: ClassCountsSource,
        many: int = MANY,
        few: int = FEW,
        areas_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if many < few:
            raise ValueError(f'many must be at least few, got {many} and {few}')
        self.class_counts = load_class_counts(class_counts).numpy()
        self.shots = shot_of(self.class_counts, many, few)
        self.areas_file = areas_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the label and the prediction of each image."""
        self.results += [(int(s['gt_label']), int(s['pred_label'])) for s in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Accuracies in per cent from the (label, prediction) of every image of all ranks."""
        classes = self.dataset_meta['classes']
        if len(classes) != len(self.class_counts):
            raise ValueError(
                f'class_counts of ShotAccuracy has {len(self.class_counts)} classes, the data set '
                f'{len(classes)}: run `python tools/class_statistics.py CONFIG` for this one'
            )
        label, predicted = np.array(results).T
        areas = areas_of(predicted, label, len(classes))
        if self.areas_file is not None:
            rows = Areas(*(area[None] for area in areas))
            save_areas(Path(self.areas_file), rows, list(classes))
        top1 = areas.intersect.sum() / areas.label.sum()
        metrics = {'top1': top1} | shot_accuracies(areas, self.shots)
        return {name: round(float(100 * value), 2) for name, value in metrics.items()}
