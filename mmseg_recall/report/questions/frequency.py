"""How do rare, common and frequent classes do? By share of pixels, and of images."""

from __future__ import annotations

import numpy as np

from ..blocks import Cell, Section, Table, estimated, section
from ..summary import Comparison

ORDER = 55
RARE_PIXELS, FREQUENT_PIXELS = 1.0, 10.0
RARE_IMAGES, FREQUENT_IMAGES = 10.0, 50.0
"""Bounds in per cent; a class at a bound belongs to the more frequent group."""
GROUPS = ('rare', 'common', 'frequent')


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if comparison.classifies:
        return None
    known = (run.images for run in comparison.runs if run.images is not None)
    of_pixels = comparison.share
    of_images = next((100 * (images.label > 0).mean(axis=0) for images in known), None)
    pixels = f'pixels of the {comparison.share_of} set'
    by_pixels = _table(comparison, of_pixels, pixels, RARE_PIXELS, FREQUENT_PIXELS)
    by_images = _table(comparison, of_images, 'test images', RARE_IMAGES, FREQUENT_IMAGES)
    return section('', by_pixels, by_images)


def _table(
    comparison: Comparison, share: np.ndarray | None, of: str, rare: float, frequent: float
) -> Table | None:
    """A row a loss, the mean accuracy and IoU of each group; None where all classes are one."""
    if share is None:
        return None
    group = np.digitize(share, (rare, frequent))
    members = {name: np.flatnonzero(group == i) for i, name in enumerate(GROUPS)}
    members = {name: classes for name, classes in members.items() if len(classes)}
    if len(members) < 2:
        return None
    measures = {
        f'{name} {title}': (metric, tuple(classes.tolist()))
        for metric, title in (('Acc', 'accuracy'), ('IoU', 'IoU'))
        for name, classes in members.items()
    }
    rows = tuple(
        (Cell(loss.label), *(estimated(comparison.estimate(loss, m)) for m in measures.values()))
        for loss in comparison.losses
    )
    named = '; '.join(
        f'{name} {", ".join(comparison.classes[c] for c in classes)}'
        for name, classes in members.items()
    )
    note = (
        f'Mean over the classes of a group, per cent, and its interval of 95%. Of the {of}, '
        f'rare: below {rare:g}%; frequent: from {frequent:g}%; common: between ({named}).'
    )
    return Table(f'Rare and frequent classes, by share of {of}', note, ('loss', *measures), rows)
