"""Virtual KITTI 2, for the paper's limitation experiment."""

from __future__ import annotations

from typing import ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset

VIRTUAL_KITTI_COLOURS: dict[str, tuple[int, int, int]] = {
    'terrain': (210, 0, 200),
    'sky': (90, 200, 255),
    'tree': (0, 199, 0),
    'vegetation': (90, 240, 0),
    'building': (140, 140, 140),
    'road': (100, 60, 100),
    'guard rail': (250, 100, 255),
    'traffic sign': (255, 255, 0),
    'traffic light': (200, 200, 0),
    'pole': (255, 130, 0),
    'misc': (80, 80, 80),
    'truck': (160, 60, 60),
    'car': (255, 127, 80),
    'van': (0, 139, 139),
}
"""Name and RGB colour of each class, in the order of the release's ``colors.txt``."""

UNDEFINED_COLOUR = (0, 0, 0)
"""RGB colour of the pixels without a class, last in ``colors.txt``."""


@DATASETS.register_module()
class VirtualKitti2Dataset(CheckedSegDataset):
    """Virtual KITTI 2 in mmseg's layout: JPEG images, 8-bit labels 0-13, undefined 255.

    The classes are the 14 of ``colors.txt`` of release 2.0.3, in its order, without Undefined.
    The images are 1242 x 375 pixels.

    Example:
        >>> VirtualKitti2Dataset(lazy_init=True).metainfo['classes'][:3]
        ('terrain', 'sky', 'tree')

    Source: Cabon, Murray, Humenberger, "Virtual KITTI 2".
    """

    METAINFO: ClassVar[dict] = dict(
        classes=tuple(VIRTUAL_KITTI_COLOURS),
        palette=[list(colour) for colour in VIRTUAL_KITTI_COLOURS.values()],
    )
