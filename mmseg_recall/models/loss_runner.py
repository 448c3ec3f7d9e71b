"""Swap the loss of any mmseg config: the runner that ``configs/_base_/losses`` name."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS, RUNNERS

from ..losses.class_counts import ClassCountsLoss
from .fused_head import fuse_tails, head_configs
from .logit_adjustment import adjust_logits


def swap_loss(cfg: Config) -> Config:
    """Replace the softmax cross-entropy of every head by the config's top-level ``loss_decode``.

    Each entry keeps its own ``loss_weight``, and its ``loss_name`` where that is not
    CrossEntropyLoss's default. Sigmoid and mask cross-entropy, the classification of queries, and
    every other loss stay. Where the new loss takes ``class_counts`` and ``loss_decode`` gives none,
    the config's top-level ``class_counts`` (each of our dataset bases has one) is filled in.

    The result may be swapped again: entries of ``loss_decode``'s own type are replaced as well.

    Args:
        cfg: A config with ``model`` and ``loss_decode``; it is left as it is.

    Returns:
        A copy of ``cfg`` with the losses replaced.

    Raises:
        KeyError: ``loss_decode`` is missing, or names a loss that is not registered.
        ValueError: ``loss_decode`` gives a ``loss_weight`` (that is each head's own), or no head
            has a loss to replace.

    Example:
        >>> ce = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)
        >>> cfg = Config(
        ...     dict(
        ...         model=dict(decode_head=dict(type='FCNHead', loss_decode=ce)),
        ...         loss_decode=dict(type='RecallLoss'),
        ...     )
        ... )
        >>> swap_loss(cfg).model.decode_head.loss_decode
        {'type': 'RecallLoss', 'loss_weight': 0.4}
    """
    cfg = copy.deepcopy(cfg)
    new_loss = _complete_loss(cfg)
    swapped = 0
    for head in head_configs(cfg.model):
        losses = head.get('loss_decode') or []
        for loss in losses if isinstance(losses, list) else [losses]:
            if _is_replaceable(loss, new_loss):
                _replace(loss, new_loss)
                # Counts of another data set are then refused when the model is built.
                if issubclass(_loss_class(loss), ClassCountsLoss):
                    loss['num_classes'] = head.get('num_classes')
                swapped += 1
    if not swapped:
        raise ValueError(
            f'No loss was replaced by {new_loss["type"]}: neither model.decode_head nor '
            'model.auxiliary_head has a softmax CrossEntropyLoss as its loss_decode. Set '
            'loss_decode in the head itself and remove the loss base from the config.'
        )
    return cfg


def _complete_loss(cfg: Config) -> dict[str, Any]:
    if 'loss_decode' not in cfg:
        raise KeyError(
            "The config has runner_type='LossRunner' but no top-level loss_decode: add one of "
            "configs/_base_/losses, or loss_decode=dict(type='RecallLoss')."
        )
    loss = dict(cfg.loss_decode)
    if 'loss_weight' in loss:
        raise ValueError(
            'loss_decode.loss_weight has no effect: each head keeps its own. Set '
            'model.decode_head.loss_decode.loss_weight instead.'
        )
    loss_class = _loss_class(loss)
    if loss_class is None:
        raise KeyError(f'loss_decode.type {loss["type"]!r} is not a registered loss.')
    if 'class_counts' in inspect.signature(loss_class).parameters and 'class_counts' in cfg:
        loss.setdefault('class_counts', cfg.class_counts)
    return loss


def _is_replaceable(loss: dict[str, Any], new_loss: dict[str, Any]) -> bool:
    if loss.get('use_sigmoid') or loss.get('use_mask'):
        return False
    # By this name a head that predicts masks (SAN) finds what classifies its queries, not pixels.
    if loss.get('loss_name', '').startswith('loss_cls'):
        return False
    return _loss_class(loss) in (CrossEntropyLoss, _loss_class(new_loss))


def _replace(loss: dict[str, Any], new_loss: dict[str, Any]) -> None:
    kept = {'loss_weight': loss.get('loss_weight', 1.0)}
    if loss.get('loss_name', 'loss_ce') != 'loss_ce':
        kept['loss_name'] = loss['loss_name']
    loss.clear()
    loss.update(copy.deepcopy(new_loss), **kept)


def _loss_class(loss: dict[str, Any]) -> type | None:
    # mmengine's newer configs give the class itself instead of its name.
    return MODELS.get(loss['type']) if isinstance(loss['type'], str) else loss['type']


@RUNNERS.register_module()
class LossRunner(Runner):
    """mmengine's runner, built from a config whose losses are swapped first (:func:`swap_loss`).

    Its heads score their logits without upsampling them (:func:`fuse_tails`): by default on CPU,
    and as the config's top-level ``fused_tail`` says where it is given. A top-level
    ``logit_adjustment = dict(tau=1.0)`` adjusts what it predicts (:func:`adjust_logits`).
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build the runner; the config that it dumps to the work dir can be run again."""
        cfg = swap_loss(cfg)
        if cfg.get('fused_tail', not torch.cuda.is_available()):
            cfg = fuse_tails(cfg)
        if 'logit_adjustment' in cfg:
            cfg = adjust_logits(cfg)
        return super().from_cfg(cfg)
