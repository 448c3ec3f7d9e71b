"""The losses of the segmentation half, in mmpretrain's registry: the same classes, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmpretrain.registry import MODELS

from ..losses import SegmentationLoss, available_losses


def without_ignored_id(loss_class: type[SegmentationLoss]) -> Callable[..., SegmentationLoss]:
    """A function that builds the loss with ``ignore_index=None`` unless it is given another.

    Among thousands of classes, 255, the default for label maps, is a class like others.

    Example:
        >>> from mmseg_recall.losses import RecallLoss
        >>> without_ignored_id(RecallLoss)(smoothing=1.0).ignore_index is None
        True
    """

    @functools.wraps(loss_class, updated=())
    def build(**options: Any) -> SegmentationLoss:
        return loss_class(**{'ignore_index': None, **options})

    return build


for _name, _loss_class in available_losses().items():
    if _name not in MODELS:  # mmpretrain has a SeesawLoss of its own, for samples
        MODELS.register_module(name=_name, module=without_ignored_id(_loss_class))
