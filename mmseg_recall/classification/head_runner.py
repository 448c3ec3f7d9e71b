"""Give any mmpretrain config another method: the runner that the bases of methods name."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS  # mmpretrain's scripts look for runners here
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from ..config import parameter


def swap_head(cfg: Config) -> Config:
    """Put the config's top-level ``head`` into ``model.head``, which keeps its other arguments.

    A top-level ``batch_sampler`` becomes that of the training data. A loss in the head that takes
    ``class_counts`` and gives none gets the config's top-level ``class_counts`` (each of our data
    set bases has one). The result may be swapped again.

    Args:
        cfg: A config with ``model.head`` (``num_classes``, ``in_channels``) and ``head``; it is
            left as it is.

    Returns:
        A copy of ``cfg`` with the head replaced.

    Raises:
        KeyError: ``head`` or ``model.head`` is missing, or a loss is not registered.

    Example:
        >>> cfg = Config(
        ...     dict(
        ...         model=dict(head=dict(type='LinearClsHead', num_classes=2, in_channels=8)),
        ...         head=dict(type='CosineClsHead', loss=dict(type='LDAMLoss')),
        ...         class_counts=[9, 1],
        ...     )
        ... )
        >>> head = swap_head(cfg).model.head
        >>> head.type, head.num_classes, head.loss
        ('CosineClsHead', 2, {'type': 'LDAMLoss', 'class_counts': [9, 1]})
    """
    if 'head' not in cfg or 'head' not in cfg.get('model', {}):
        raise KeyError(
            "The config has runner_type='HeadRunner', which puts its top-level head into "
            'model.head: both must be there. Add one of configs/classification/_base_/methods'
        )
    cfg = copy.deepcopy(cfg)
    cfg.model.head.update(copy.deepcopy(cfg.head))
    if 'batch_sampler' in cfg:
        cfg.train_dataloader.batch_sampler = copy.deepcopy(cfg.batch_sampler)
    for name, loss in cfg.model.head.items():
        is_loss = name.startswith('loss') and isinstance(loss, dict) and 'type' in loss
        if is_loss and _takes_counts(loss):
            loss.setdefault('class_counts', cfg.get('class_counts'))
    return cfg


def _takes_counts(loss: dict[str, Any]) -> bool:
    loss_class = MODELS.get(loss['type'])
    if loss_class is None:
        raise KeyError(f'{loss["type"]!r} in head is not a registered loss.')
    return parameter(inspect.unwrap(loss_class), 'class_counts') is not None


@RUNNERS.register_module()
class HeadRunner(Runner):
    """mmengine's runner, built from a config whose head is swapped first (:func:`swap_head`)."""

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build the runner; the config that it dumps to the work dir can be run again."""
        return super().from_cfg(swap_head(cfg))
