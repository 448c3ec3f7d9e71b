"""Surface defects of hot-rolled steel strip."""

from __future__ import annotations

from typing import ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset


@DATASETS.register_module()
class NeuSegDataset(CheckedSegDataset):
    """NEU-Seg in mmseg's layout: JPEG images, 8-bit labels 0-3.

    Example:
        >>> NeuSegDataset(lazy_init=True).metainfo['classes']
        ('background', 'inclusion', 'patches', 'scratches')

    Source: Dong et al., "PGA-Net: Pyramid Feature Fusion and Global Context Attention Network for
    Automated Surface Defect Detection".
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'inclusion', 'patches', 'scratches'),
        palette=[[0, 0, 0], [230, 25, 75], [60, 180, 75], [0, 130, 200]],
    )
