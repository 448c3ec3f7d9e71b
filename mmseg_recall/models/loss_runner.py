"""Swap the loss of any mmseg config: the runner that ``configs/_base_/losses`` name."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import RUNNERS

from ..config import (
    as_list,
    component_class,
    heads,
    losses,
    needs_class_counts,
    parameter,
)
from .fused_head import fuse_tails
from .logit_adjustment import adjust_logits


def swap_loss(cfg: Config) -> Config:
    """Replace the softmax cross-entropy of every head by the config's top-level ``loss_decode``.

    Each entry keeps its own ``loss_weight``, and its ``loss_name`` where that is not
    CrossEntropyLoss's default. Sigmoid and mask cross-entropy, the classification of queries, and
    every other loss stay. Where the new loss takes ``class_counts`` and ``loss_decode`` gives none,
    the config's top-level ``class_counts`` (each of our dataset bases has one) is filled in.

    ``loss_decode`` may be a list: the sum of its losses then takes the place of each cross-entropy,
    and a ``loss_weight`` in it is a factor on that of the head.

    The result may be swapped again: entries of ``loss_decode``'s own types are replaced as well.

    Args:
        cfg: A config with ``model`` and ``loss_decode``; it is left as it is.

    Returns:
        A copy of ``cfg`` with the losses replaced.

    Raises:
        KeyError: ``loss_decode`` is missing, or names a loss that is not registered.
        ValueError: A single ``loss_decode`` gives a ``loss_weight`` (that is each head's own), a
            list is empty or names a type twice, or no head has a loss to replace.

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
        >>> cfg.loss_decode = [dict(type='RecallLoss'), dict(type='DiceLoss', loss_weight=0.5)]
        >>> [loss.loss_weight for loss in swap_loss(cfg).model.decode_head.loss_decode]
        [0.4, 0.2]
    """
    cfg = copy.deepcopy(cfg)
    new_losses = _complete_losses(cfg)
    swapped = 0
    for head in heads(cfg.model).values():
        old = losses(head)
        replaced = [_replacements(loss, new_losses, old) for loss in old]
        if any(replaced):
            mixed = [loss for i, new in enumerate(replaced) for loss in new or [old[i]]]
            # Counts of another dataset are then refused when the model is built.
            for loss in mixed:
                if needs_class_counts(loss) and parameter(component_class(loss), 'num_classes'):
                    loss['num_classes'] = head.get('num_classes')
            single = len(mixed) == 1 and not isinstance(head.get('loss_decode'), (list, tuple))
            head['loss_decode'] = mixed[0] if single else mixed
            swapped += 1
    if not swapped:
        names = ' + '.join(str(loss['type']) for loss in new_losses)
        raise ValueError(
            f'No loss was replaced by {names}: neither model.decode_head nor '
            'model.auxiliary_head has a softmax CrossEntropyLoss as its loss_decode. Set '
            'loss_decode in the head itself and remove the loss base from the config.'
        )
    return cfg


def _complete_losses(cfg: Config) -> list[dict[str, Any]]:
    if 'loss_decode' not in cfg:
        raise KeyError(
            "The config has runner_type='LossRunner' but no top-level loss_decode: add one of "
            "configs/_base_/losses, or loss_decode=dict(type='RecallLoss')."
        )
    if not isinstance(cfg.loss_decode, (list, tuple)) and 'loss_weight' in cfg.loss_decode:
        raise ValueError(
            'loss_decode.loss_weight has no effect: each head keeps its own. Set '
            'model.decode_head.loss_decode.loss_weight instead.'
        )
    new_losses = [dict(loss) for loss in as_list(cfg.loss_decode)]
    for loss in new_losses:
        if component_class(loss) is None:
            raise KeyError(f'loss_decode.type {loss["type"]!r} is not a registered loss.')
        if needs_class_counts(loss) and 'class_counts' in cfg:
            loss.setdefault('class_counts', cfg.class_counts)
    if not new_losses or len(set(map(component_class, new_losses))) < len(new_losses):
        raise ValueError(
            f'loss_decode is a list of losses of different types, got {cfg.loss_decode}'
        )
    return new_losses


def _replacements(
    loss: dict[str, Any], new_losses: list[dict[str, Any]], old: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What takes the place of one loss of a head whose losses are ``old``; [] if it stays."""
    if loss.get('use_sigmoid') or loss.get('use_mask'):
        return []
    # By this name a head that predicts masks (SAN) finds what classifies its queries, not pixels.
    if loss.get('loss_name', '').startswith('loss_cls'):
        return []
    kind = component_class(loss)
    same = [new for new in new_losses if component_class(new) is kind]
    if kind is CrossEntropyLoss and len(new_losses) > 1:
        # Cross-entropy may be one of the new losses: of a head that has them all.
        swapped = {component_class(new) for new in new_losses} <= {
            component_class(loss) for loss in old
        }
        same = same if swapped else []
    if same:
        return [_replaced(loss, {**same[0], 'loss_weight': 1.0})]
    return [_replaced(loss, new) for new in new_losses] if kind is CrossEntropyLoss else []


def _replaced(loss: dict[str, Any], new_loss: dict[str, Any]) -> ConfigDict:
    weight = new_loss.get('loss_weight', 1.0) * loss.get('loss_weight', 1.0)
    kept = {'loss_weight': weight}
    if loss.get('loss_name', 'loss_ce') != 'loss_ce':
        kept['loss_name'] = loss['loss_name']
    return ConfigDict(copy.deepcopy(new_loss), **kept)


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
