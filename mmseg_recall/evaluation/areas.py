"""Pixel areas per class, and every evaluation metric that they define."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Areas(NamedTuple):
    """Pixels per class of one image, of many (first axis), or of a data set.

    Only pixels whose label is not ``ignore_index`` take part.

    Attributes:
        intersect: Pixels of class c predicted as c. Shape (..., C), int64.
        predicted: Pixels predicted as c. Shape (..., C), int64.
        label: Pixels of class c. Shape (..., C), int64.
    """

    intersect: np.ndarray
    predicted: np.ndarray
    label: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """Pixels that are class c, or predicted as c. Shape (..., C), int64."""
        return self.predicted + self.label - self.intersect


def areas_of(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> Areas:
    """Of class ids (n,) that all are in [0, num_classes).

    Example:
        >>> areas_of(np.array([0, 1, 1]), np.array([0, 0, 1]), num_classes=2).union
        array([2, 2])
    """
    hit = label[prediction == label]
    return Areas(*(np.bincount(ids, minlength=num_classes) for ids in (hit, prediction, label)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def iou(areas: Areas) -> np.ndarray:
    """Intersection over union, (..., C) in [0, 1]; NaN where the union is empty."""
    return _ratio(areas.intersect, areas.union)


def accuracy(areas: Areas) -> np.ndarray:
    """Share of a class's pixels that are predicted right (its recall), (..., C); NaN without any.

    Example:
        >>> accuracy(Areas(np.array([3, 0]), np.array([4, 0]), np.array([4, 0])))
        array([0.75,  nan])
    """
    return _ratio(areas.intersect, areas.label)


def precision(areas: Areas) -> np.ndarray:
    """Share of a class's predictions that are right, (..., C); NaN where it is never predicted."""
    return _ratio(areas.intersect, areas.predicted)


def f1(areas: Areas) -> np.ndarray:
    """Harmonic mean of precision and accuracy (the Dice score), (..., C); NaN if both are empty."""
    return _ratio(2 * areas.intersect, areas.predicted + areas.label)


PER_CLASS = {'IoU': iou, 'Acc': accuracy, 'Precision': precision, 'F1': f1}


def mean(values: np.ndarray) -> float:
    """Mean over what is not NaN; NaN if all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def worst_mean(values: np.ndarray, percent: float) -> float:
    """Mean of the lowest ``percent`` of the values that are not NaN, of one at least.

    Args:
        values: Any shape.
        percent: In (0, 100]; the number of values is rounded down.

    Example:
        >>> worst_mean(np.array([0.9, 0.1, 0.3, np.nan, 0.7]), 50)
        0.2
    """
    known = np.sort(values[~np.isnan(values)])
    return mean(known[: max(1, int(percent / 100 * known.size))])


def image_level_miou(areas: Areas, percent: float = 100) -> float:
    """mIoU^I: the mean over images of each image's mean IoU over the classes it contains.

    A class that an image does not contain takes no part in it, even where it is predicted.

    Args:
        areas: Of each image, (images, C).
        percent: Take only the images with the lowest ``percent`` of the values.

    Source: Wang et al. 2023, "Revisiting Evaluation Metrics for Semantic Segmentation".
    """
    per_image = np.array([mean(row) for row in _iou_where_present(areas)])
    return worst_mean(per_image, percent)


def class_level_miou(areas: Areas, percent: float = 100) -> float:
    """mIoU^C: the mean over classes of each class's mean IoU over the images that contain it.

    Args:
        areas: Of each image, (images, C).
        percent: Take only the lowest ``percent`` of each class's values.

    Source: Wang et al. 2023, "Revisiting Evaluation Metrics for Semantic Segmentation".
    """
    per_class = [worst_mean(column, percent) for column in _iou_where_present(areas).T]
    return mean(np.array(per_class))


def _iou_where_present(areas: Areas) -> np.ndarray:
    return np.where(areas.label > 0, iou(areas), np.nan)
