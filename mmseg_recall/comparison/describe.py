"""What a config says, in the words of a table: its loss, and everything but its loss."""

from __future__ import annotations

import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from mmengine.config import Config

from ..config import (
    datasets,
    is_classification,
    loss_name,
    predicting_head,
    trained_losses,
    training_length,
    type_name,
)
from ..literal_config import parse_config
from .identity import digest, identity

ARCHITECTURES = {
    'ASPP': 'DeepLabV3',
    'DepthwiseSeparableASPP': 'DeepLabV3+',
    'PSP': 'PSPNet',
    'Uper': 'UPerNet',
}
# Classifiers made from a trained one, whose checkpoint is the config's load_from.
POST_HOC = {'TauNormalizedHead': 'tau-norm', 'LWSHead': 'LWS'}


def loss_label(cfg: Config) -> str:
    """Name of the loss of a config: type and options, such as ``'SoftmaxFocal gamma=2'``.

    Of a classifier it names the method: the losses, heads and hooks that make it.

    Example:
        >>> loss_label(Config(dict(imbalance_loss=dict(type='RecallLoss', momentum=0.5))))
        'Recall momentum=0.5'
        >>> head = dict(type='SDNHead', loss=dict(type='RecallLoss'))
        >>> loss_label(Config(dict(default_scope='mmpretrain', head=head)))
        'SDN (Recall)'
    """
    if is_classification(cfg):
        return _method_label(cfg)
    return loss_name(*trained_losses(cfg))


def _method_label(cfg: Config) -> str:
    head = cfg.get('head') or cfg.model.head
    name = type_name(head)
    if name in POST_HOC:
        tau = f' tau={head["tau"]}' if 'tau' in head else ''
        return f'{POST_HOC[name]}{tau}'
    if name == 'BBNHead':
        return 'BBN'
    label = loss_name(head.get('loss', dict(type='CrossEntropyLoss')))
    if name == 'SDNHead':
        return f'SDN ({label})'
    deferred = any(
        type_name(hook) == 'DeferredReweightingHook' for hook in cfg.get('custom_hooks') or []
    )
    return f'{label}-DRW' if deferred else label


def describe(cfg: Config) -> dict[str, Any]:
    """What identifies a run in a report, from its config.

    Returns:
        task: 'segmentation' or 'classification'.
        loss: See :func:`loss_label`.
        key, family, loss_key: Hashes of :class:`~mmseg_recall.comparison.identity.Identity`. A
            classifier made from a trained one has the key and the family of that training.
        model, dataset, data_root, schedule: In words.
        iterations, batch_size: As trained; iterations counts epochs for an epoch-based loop.
        tuning: Of a tuned loss, see :func:`mmseg_recall.comparison.tuning.tune`; None of others.
    """
    loss, own, tuning = loss_label(cfg), identity(cfg), cfg.get('tuning')
    trained = _trained_config(cfg) if is_classification(cfg) else None
    if trained is not None:
        cfg = trained
    backbone = cfg.model.get('backbone', {})
    depth = f'-{backbone["depth"]}' if 'depth' in backbone else ''
    model = backbone.get('model_name') or f'{type_name(backbone)}{depth}'
    if not is_classification(cfg):
        head_name = type_name(predicting_head(cfg.model)).removesuffix('Head')
        frozen = ', frozen' if 'frozen_features' in cfg else ''
        model = f'{ARCHITECTURES.get(head_name, head_name)} {model}{frozen}'
    dataset = next(datasets(cfg.test_dataloader.dataset))
    iterations, unit = training_length(cfg)
    loader = cfg.get('train_dataloader')
    batch_size = loader.get('batch_size', 1) if loader else None
    compared = own if trained is None else identity(trained)
    return {
        'task': 'classification' if is_classification(cfg) else 'segmentation',
        'loss': loss,
        'key': compared.key,
        'family': compared.family,
        # All of its own config is what was made of the trained one.
        'loss_key': own.loss_key if trained is None else digest(own),
        'model': model,
        'dataset': type_name(dataset).removesuffix('Dataset'),
        'data_root': PurePosixPath(dataset.get('data_root') or '').name,
        'schedule': f'{iterations} {unit}, batch {batch_size}',
        'iterations': iterations,
        'batch_size': batch_size,
        'tuning': tuning,
    }


def _trained_config(cfg: Config) -> Config | None:
    """The config of the training that a classifier was made from; None if it is not known."""
    head = cfg.get('head') or cfg.model.head
    # Of a URL, and of a file that is not there, nothing is known: the test may find it, or fail.
    if type_name(head) not in POST_HOC or not Path(cfg.get('load_from') or '').is_file():
        return None
    checkpoint = torch.load(cfg.load_from, map_location='cpu', weights_only=True)
    text = checkpoint.get('meta', {}).get('cfg')
    try:
        return parse_config(str(text), cfg.load_from) if text else None
    except ValueError as error:
        warnings.warn(f'{error}; what its model was trained with is not known', stacklevel=2)
        return None
