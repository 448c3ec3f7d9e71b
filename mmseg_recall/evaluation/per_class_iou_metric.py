"""mmseg's IoUMetric with per-class scalars and the means that average per image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from ..files import write_atomically
from ..functional import log_prior
from ..losses.class_counts import (
    ClassCountsSource,
    check_class_names,
    load_class_counts,
    load_class_names,
)
from . import areas as A


@METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """IoUMetric that also returns each class's values, and fine-grained means, as scalars.

    What IoUMetric returns (aAcc, mIoU, mAcc, ...) is unchanged. Added, all in per cent:

    - ``IoU/road``, ``Acc/road``, ``Precision/road``, ``F1/road`` for each class; NaN where a
      class has nothing to be scored by (see :mod:`mmseg_recall.evaluation.areas`).
    - ``mPrecision``, ``mF1``: their means over the classes.
    - ``mIoU_I`` and ``mIoU_C``: mean over images, and over classes of the mean over images;
      ``mIoU_I5`` and ``mIoU_C5`` are their means over the worst 5 per cent.
    - With ``class_counts``, ``tau=0.5/aAcc``, ``tau=0.5/mIoU`` and ``tau=0.5/mAcc`` for each of
      ``taus``: what post-hoc logit adjustment by that tau would score,

          prediction = argmax_c z_c - tau log pi_c,    pi_c = N_c / sum_k N_k

      from the logits that the model leaves beside its prediction. A constant a class commutes
      with the resizing of the logits and with the mean over windows, so one test gives the whole
      curve. Under test-time augmentation those logits are of one view only: leave it out there.
    - With ``thresholds``, of a head of one channel, the same as ``threshold=0.1/mIoU`` and so on:
      what another threshold would score. There it is what ``taus`` are elsewhere.

    Args:
        worst: Per cent of the lowest values, each in (0, 100], that ``mIoU_I<q>`` and
            ``mIoU_C<q>`` average.
        areas_file: Write the areas of each image to this ``.npz`` (arrays intersect, predicted,
            label: (images, C) int64; classes), from which every metric can be computed again.
        class_counts: N_c of the training set, a list, or the JSON file of
            ``tools/class_statistics.py``; none may be 0.
        taus: Each >= 0.
        thresholds: Of the probability of class 1, each in (0, 1).
        kwargs: Of mmseg's IoUMetric.

    Raises:
        ValueError: A value of ``worst`` outside (0, 100]; both ``class_counts`` and ``thresholds``,
            or one of them for the other's kind of head; tau < 0; counts that are 0 or, at the
            first image, not as many as the logits have classes, or of classes of other names.
        FileNotFoundError: No such file; the message is the command that writes it.

    Example:
        >>> val_evaluator = dict(type='PerClassIoUMetric', iou_metrics=['mIoU'])

    Source: Wang et al. 2023, "Revisiting Evaluation Metrics for Semantic Segmentation"; Menon et
    al. 2021, "Long-tail Learning via Logit Adjustment", post-hoc.
    """

    def __init__(
        self,
        worst: Sequence[float] = (5,),
        areas_file: str | None = None,
        class_counts: ClassCountsSource | None = None,
        taus: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
        thresholds: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not all(0 < percent <= 100 for percent in worst):
            raise ValueError(f'worst must be percentages in (0, 100], got {list(worst)}')
        self.worst = worst
        self.areas_file = areas_file
        if class_counts is not None and thresholds:
            raise ValueError('class_counts are for logits of classes, thresholds for one channel')
        self.class_names = None if class_counts is None else load_class_names(class_counts)
        self.thresholds = list(thresholds)
        self.taus: list[float] = []
        if class_counts is not None:
            counts = load_class_counts(class_counts)
            self.taus = list(taus)
            self.adjustments = [log_prior(counts, tau).float().view(-1, 1, 1) for tau in taus]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the areas of each image and, after them, those under each tau or threshold."""
        known = len(self.results)
        if known == 0 and self.dataset_meta:
            where = 'class_counts of the logit adjustment'
            check_class_names(self.class_names, self.dataset_meta['classes'], where)
        super().process(data_batch, data_samples)
        if (self.taus or self.thresholds) and not self.format_only:
            for i, sample in enumerate(data_samples, start=known):
                # One entry an image: what is gathered over the ranks is cut to their number.
                self.results[i] += self._adjusted_areas(sample)

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As IoUMetric's, counted in integers: its float32 stops at 2**24 pixels of a class."""
        valid = label != ignore_index
        # Of one channel mmseg predicts in floats, and makes the label one of them.
        predicted, label = pred_label[valid].long(), label[valid].long()
        hit, predicted, label = (
            # As many as there are classes: other ids are of none.
            ids[(ids >= 0) & (ids < num_classes)].bincount(minlength=num_classes).cpu()
            for ids in (predicted[predicted == label], predicted, label)
        )
        return hit, predicted + label - hit, predicted, label

    def _adjusted_areas(self, sample: dict) -> tuple[Tensor, ...]:
        """As IoUMetric's ``intersect_and_union``, but (taus, C)."""
        logits = sample['seg_logits']['data']
        label = sample['gt_sem_seg']['data'][0].to(logits.device)
        num_classes = len(self.dataset_meta['classes'])
        rows = [
            self.intersect_and_union(prediction, label, num_classes, self.ignore_index)
            for prediction in self._adjusted(logits)
        ]
        return tuple(torch.stack(areas) for areas in zip(*rows, strict=True))

    def _adjusted(self, logits: Tensor) -> Iterator[Tensor]:
        """Predictions (H, W) under each tau, or threshold."""
        if self.thresholds:
            if len(logits) != 1:
                raise ValueError(f'thresholds are for one channel, the logits have {len(logits)}')
            # Of one channel mmseg hands on the probability.
            yield from ((logits[0] > threshold).long() for threshold in self.thresholds)
            return
        if len(logits) == 1:
            raise ValueError(
                'class_counts of the logit adjustment need a logit a class, and the head has one '
                'channel for two. There the threshold does the same: leave out class_counts and '
                'set thresholds=(0.1, 0.2, 0.3, 0.4, 0.5)'
            )
        if len(self.adjustments[0]) != len(logits):
            raise ValueError(
                f'class_counts of the logit adjustment have {len(self.adjustments[0])} classes, '
                f'the logits have {len(logits)}. Run `python tools/class_statistics.py CONFIG` for '
                'this data set'
            )
        for adjustment in self.adjustments:
            yield (logits - adjustment.to(logits.device)).argmax(dim=0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Metrics in per cent from the areas of each image."""
        predicted_areas = [row[:4] for row in results]
        metrics = super().compute_metrics(predicted_areas)
        if self.format_only:
            return metrics
        intersect, _, predicted, label = (
            torch.stack(column).numpy() for column in zip(*predicted_areas, strict=True)
        )
        images = A.Areas(intersect, predicted, label)
        classes = list(self.dataset_meta['classes'])
        if self.areas_file is not None:
            save_areas(Path(self.areas_file), images, classes)
        total = A.Areas(*(area.sum(axis=0) for area in images))
        added = {
            f'{name}/{label}': value
            for name, function in A.PER_CLASS.items()
            for label, value in zip(classes, function(total), strict=True)
        }
        added |= {'mPrecision': A.mean(A.precision(total)), 'mF1': A.mean(A.f1(total))}
        added |= fine_grained(images, self.worst)
        if self.nan_to_num is not None:
            added = {k: self.nan_to_num if np.isnan(v) else v for k, v in added.items()}
        added = {name: round(float(100 * value), 2) for name, value in added.items()}
        added = {name: value for name, value in added.items() if name not in metrics}
        return metrics | added | self._curve([row[4:] for row in results])

    def _curve(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """The scalars of each value, computed as IoUMetric computes those of the prediction."""
        totals = [sum(areas) for areas in zip(*results, strict=True)]
        names = [f'tau={tau:g}' for tau in self.taus]
        names += [f'threshold={threshold:g}' for threshold in self.thresholds]
        scalars = {}
        for value, *areas in zip(names, *totals, strict=True):
            means = self.total_area_to_metrics(*areas, ['mIoU'], self.nan_to_num)
            for name, values in means.items():
                key = f'{value}/{name if name == "aAcc" else f"m{name}"}'
                scalars[key] = round(float(np.nanmean(values)) * 100, 2)
        return scalars


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
