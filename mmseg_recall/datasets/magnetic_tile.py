"""Surface defects of magnetic tiles."""

from __future__ import annotations

from typing import ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset


@DATASETS.register_module()
class MagneticTileDataset(CheckedSegDataset):
    """Magnetic tiles in mmseg's layout: JPEG images, 8-bit labels 0-5.

    Example:
        >>> MagneticTileDataset(lazy_init=True).metainfo['classes'][1]
        'blowhole'

    Source: Huang, Qiu, Guo, Wang, Yuan, "Surface Defect Saliency of Magnetic Tile".
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'blowhole', 'break', 'crack', 'fray', 'uneven'),
        palette=[
            *([0, 0, 0], [230, 25, 75], [60, 180, 75]),
            *([255, 225, 25], [0, 130, 200], [245, 130, 48]),
        ],
    )
