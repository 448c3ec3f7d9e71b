"""What a run is: everything in its config but the losses and the seed.

Runs of one identity are compared with each other; those of one loss among them, by everything that
the config says of it, are its seeds.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from mmengine.config import Config

from ..config import THRESHOLD, heads, parts

# Where a run writes, how it is started, and what a loss brings along.
NOT_THE_RUN = {
    *('work_dir', 'resume', 'launcher', 'log_level', 'visualizer', 'vis_backends'),
    *('experiment_name', 'custom_imports', 'fused_tail'),
}
# What a method of classification brings along beside its head.
METHOD_HOOKS = ('DeferredReweightingHook', 'CumulativeLearningHook')
BATCH_SAMPLER = 'BilateralBatchSampler'
RUNNERS_THAT_SWAP = ('LossRunner', 'HeadRunner')
SCHEDULE = ('param_scheduler', 'train_cfg', 'default_hooks')


class Identity(NamedTuple):
    """A config in two halves.

    Attributes:
        setup: Everything but the losses and the seed.
        loss: All that it says of the losses, by the path of each.
    """

    setup: dict[str, Any]
    loss: dict[str, Any]

    @property
    def key(self) -> str:
        """Runs of the same key are compared."""
        return digest(self.setup)

    @property
    def family(self) -> str:
        """The same of runs that differ in training length at most."""
        return digest({k: v for k, v in self.setup.items() if k not in SCHEDULE})

    @property
    def loss_key(self) -> str:
        """Runs of the same key and loss key are the seeds of one loss."""
        return digest(self.loss)


def identity(cfg: Config) -> Identity:
    """Split a config.

    Losses are the top-level ``imbalance_loss`` (``loss_decode`` in older configs) and
    ``class_counts``, each ``loss*`` of the model, and whether a head of two classes has one channel
    for them, with its threshold; of a classifier its head and the hooks and the batch sampler of
    its method, too. A seed that stands in ``load_from`` as ``seed3`` is the seed as well.

    Example:
        >>> first = Config(dict(imbalance_loss=dict(type='RecallLoss'), randomness=dict(seed=0)))
        >>> second = Config(dict(imbalance_loss=dict(type='OHEMLoss'), randomness=dict(seed=1)))
        >>> identity(first).key == identity(second).key
        True
        >>> identity(first).loss
        {'imbalance_loss': {'type': 'RecallLoss'}}
    """
    values = cfg.to_dict()
    for part in parts(values):
        part.pop('_scope_', None)  # what `mmseg_recall::` adds to a base, and a path does not
    setup = {k: v for k, v in values.items() if k not in NOT_THE_RUN and v is not None}
    asked = ('imbalance_loss', 'loss_decode', 'class_counts')
    loss = {k: setup.pop(k) for k in asked if k in setup}
    if 'tuning' in setup:
        # How it was tuned is the same for all; what was found is the loss's own.
        setup['tuning'] = dict(setup['tuning'])
        loss['tuning.trials'] = setup['tuning'].pop('trials')
        setup['optim_wrapper'] = {**setup['optim_wrapper'], 'optimizer': None}
        loss['optim_wrapper.optimizer'] = values['optim_wrapper']['optimizer']
    if setup.get('runner_type') in RUNNERS_THAT_SWAP:
        del setup['runner_type']
    model = setup.get('model')
    if values.get('default_scope') == 'mmpretrain':
        if isinstance(model, dict) and 'head' in model:
            loss['model.head'] = model.pop('head')
        if 'head' in setup:
            loss['head'] = setup.pop('head')
        hooks = setup.pop('custom_hooks', None) or []
        of_method = [h for h in hooks if str(h.get('type')).endswith(METHOD_HOOKS)]
        if of_method:
            loss['custom_hooks'] = of_method
        setup['custom_hooks'] = [hook for hook in hooks if hook not in of_method]
        for place in (setup, setup.get('train_dataloader') or {}):
            if str(place.get('batch_sampler', {}).get('type')).endswith(BATCH_SAMPLER):
                loss['batch_sampler'] = place.pop('batch_sampler')
    setup['model'] = _without_losses(model, 'model', loss)
    if isinstance(setup['model'], dict):
        _move_outputs(setup['model'], loss)
    seed = (setup.get('randomness') or {}).get('seed')
    setup['randomness'] = {**(setup.get('randomness') or {}), 'seed': None}
    if values.get('resume'):
        setup.pop('load_from', None)  # its own checkpoint
    elif 'load_from' in setup:
        setup['load_from'] = re.sub(rf'(seed[-_]?){seed}(?!\d)', r'\1*', str(setup['load_from']))
    if 'test_evaluator' in setup:
        setup['test_evaluator'] = _without_outputs(setup['test_evaluator'])
    return Identity(setup, loss)


def _without_losses(node: Any, path: str, losses: dict[str, Any]) -> Any:
    if isinstance(node, (list, tuple)):
        return [_without_losses(v, f'{path}.{i}', losses) for i, v in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kept = {}
    for name, value in node.items():
        if re.match('loss(?!_weight)', str(name)):
            losses[f'{path}.{name}'] = value
        else:
            kept[name] = _without_losses(value, f'{path}.{name}', losses)
    if isinstance(kept.get('type'), str):
        # A fused tail computes the same numbers.
        kept['type'] = re.sub(r'(^|\.)Fused(?=\w+Head$)', r'\1', kept['type'])
    return kept


def _move_outputs(model: dict[str, Any], losses: dict[str, Any]) -> None:
    """To the losses: one channel, or two, for two classes is what a loss takes."""
    for path, head in heads(model).items():
        outputs = head.pop('out_channels', None)
        if outputs == 1 and head.get('num_classes') == 2:
            losses[f'model.{path}.out_channels'] = outputs
            losses[f'model.{path}.threshold'] = head.pop('threshold', None) or THRESHOLD
        elif outputs not in (None, head.get('num_classes')):
            head['out_channels'] = outputs


def _without_outputs(evaluator: Any) -> Any:
    if isinstance(evaluator, (list, tuple)):
        return [_without_outputs(one) for one in evaluator]
    outputs = {'areas_file', 'output_dir'}
    if str(evaluator.get('type')).endswith('PerClassIoUMetric'):
        outputs.add('class_counts')  # of the curve, which is not the model
    return {k: v for k, v in evaluator.items() if k not in outputs}


def differences(trees: list[dict[str, Any]]) -> list[str]:
    """What tells each of several dicts from the others, in words, such as ``'lr=0.1'``.

    Example:
        >>> differences([dict(a=1, b=dict(c=2)), dict(a=1, b=dict(c=3), d=4)])
        ['b.c=2', 'b.c=3 d=4']
    """
    flat = [_flatten(tree) for tree in trees]
    names = sorted({name for one in flat for name in one})
    telling = [n for n in names if len({json.dumps(one.get(n), default=str) for one in flat}) > 1]
    return [' '.join(f'{n}={_short(one[n])}' for n in telling if n in one) for one in flat]


def _flatten(node: Any, path: str = '') -> dict[str, Any]:
    if isinstance(node, (list, tuple)) and any(isinstance(v, (dict, list)) for v in node):
        node = dict(enumerate(node))
    if not isinstance(node, dict) or not node:
        return {path: node}
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= _flatten(value, f'{path}.{name}' if path else str(name))
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f'{text[:30]}... ({digest(value)[:4]})'


def digest(value: Any) -> str:
    """A short hash of a value by its JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
