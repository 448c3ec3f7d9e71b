"""Swap the losses of any mmseg config: what ``imbalance_loss`` of the loss bases asks for."""

from __future__ import annotations

import copy
import logging

from mmengine.config import Config, ConfigDict
from mmseg.models.losses import CrossEntropyLoss, OhemCrossEntropy
from mmseg.registry import MODELS

from ..config import (
    Component,
    argument,
    as_list,
    component_class,
    heads,
    losses,
    needs_class_counts,
    parameter,
    predicting_path,
    segmentor,
    type_name,
)

Report = list[tuple[int, str]]
"""Lines for the log, each with its level."""

# Of a replaced loss these are kept, or say what is true of the new one anyway.
NOT_DROPPED = {
    *('type', '_scope_', 'loss_weight', 'loss_name', 'reduction'),
    *('use_sigmoid', 'use_mask', 'avg_non_ignore', 'ignore_label'),
}


def swap_loss(cfg: Config, report: Report | None = None) -> Config:
    """Replace the cross-entropy of the pixels in every head by the config's ``imbalance_loss``.

    Softmax cross-entropy is replaced, mined for hard pixels (``OhemCrossEntropy``) or not, and in a
    head of one channel (two classes) the sigmoid one. Each new loss keeps the ``loss_weight`` of
    the one it replaces, and its ``loss_name`` where that is not the default. Every other loss
    stays. Where the new loss takes ``class_counts`` and ``imbalance_loss`` gives none, the config's
    top-level ``class_counts`` (each of our dataset bases has one) is filled in; so is the length of
    the training as the end of a ``schedule`` that gives none.

    ``imbalance_loss`` may be a list: the sum of its losses then takes the place of each
    cross-entropy, and a ``loss_weight`` in it is a factor on that of the head.

    The result may be swapped again: entries of ``imbalance_loss``'s own types are replaced as well.

    Args:
        cfg: A config with ``model`` and ``imbalance_loss``; it is left as it is.
        report: What was done in each head is appended to it.

    Returns:
        A copy of ``cfg`` with the losses replaced.

    Raises:
        KeyError: A loss, new or in a head, is not registered.
        ValueError: No loss of the head that predicts can be replaced: the message says why, and
            how to set it; a single ``imbalance_loss`` gives a ``loss_weight`` (that is each head's
            own), a list is empty or names a type twice, or a loss has no type.

    Example:
        >>> ce = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)
        >>> cfg = Config(
        ...     dict(
        ...         model=dict(decode_head=dict(type='FCNHead', loss_decode=ce)),
        ...         imbalance_loss=dict(type='RecallLoss'),
        ...     )
        ... )
        >>> swap_loss(cfg).model.decode_head.loss_decode
        {'type': 'RecallLoss', 'loss_weight': 0.4}
        >>> cfg.imbalance_loss = [dict(type='RecallLoss'), dict(type='DiceLoss', loss_weight=0.5)]
        >>> [loss.loss_weight for loss in swap_loss(cfg).model.decode_head.loss_decode]
        [0.4, 0.2]
    """
    cfg = copy.deepcopy(cfg)
    report = [] if report is None else report
    new = _complete_losses(cfg)
    predicting = predicting_path(cfg.model)
    for path, head in heads(cfg.model).items():
        places = _places(f'model.{path}.loss_decode', head)
        for place, loss in places.items():
            _loss_class(loss, place)
        kept = {place: _why_kept(loss, head, new) for place, loss in places.items()}
        if path == predicting and all(kept.values()):
            raise ValueError(_refusal(path, head, cfg, new, kept))
        mixed: list[Component] = []
        for place, loss in places.items():
            if kept[place]:
                level = logging.WARNING if _is_pixelwise(loss, head) else logging.INFO
                report.append((level, f'{place}: {type_name(loss)} is kept: {kept[place]}'))
                mixed.append(loss)
                continue
            again = _same(loss, new, head)
            # Its loss_weight has the factor already.
            sources = [{**again, 'loss_weight': 1.0}] if again else new
            replaced = [_replaced(loss, one, head) for one in sources]
            mixed += replaced
            report.append((logging.INFO, f'{place}: {_in_words(loss, replaced)}'))
        if not all(kept.values()):
            single = len(mixed) == 1 and not isinstance(head.get('loss_decode'), (list, tuple))
            head['loss_decode'] = mixed[0] if single else mixed
    return cfg


def _complete_losses(cfg: Config) -> list[Component]:
    if 'imbalance_loss' not in cfg:
        # As older versions wrote it.
        cfg.imbalance_loss = cfg.pop('loss_decode')
        cfg.pop('runner_type')
    new = [dict(loss) for loss in as_list(cfg.imbalance_loss)]
    for loss in new:
        _loss_class(loss, 'imbalance_loss')
        if needs_class_counts(loss) and 'class_counts' in cfg:
            loss.setdefault('class_counts', cfg.class_counts)
        if 'schedule' in loss:
            loss['schedule'] = _until_the_end(loss['schedule'], cfg)
    if len(new) == 1 and 'loss_weight' in new[0] and not isinstance(cfg.imbalance_loss, list):
        raise ValueError(
            'imbalance_loss.loss_weight has no effect: each head keeps its own. Set '
            'model.decode_head.loss_decode.loss_weight instead.'
        )
    if not new or len(set(map(component_class, new))) < len(new):
        raise ValueError(
            f'imbalance_loss is a list of losses of different types, got {cfg.imbalance_loss}'
        )
    return new


def _until_the_end(schedule: Component, cfg: Config) -> Component:
    """A schedule of weights that ends with the training, unless it says when."""
    loop = cfg.get('train_cfg')
    if schedule.get('kind') == 'step' or (loop and 'max_iters' not in loop):
        return schedule
    # Without a training loop nothing is trained, and any end will do.
    return {'until': loop.max_iters if loop else 1, **schedule}


def _loss_class(loss: Component, place: str) -> type:
    if not isinstance(loss, dict) or 'type' not in loss:
        raise ValueError(f'{place} has no type: {loss}')
    # A name with dots may be of a module that nobody has imported yet.
    found = component_class(loss) or MODELS.get(loss['type'])
    if found is None:
        raise KeyError(
            f'{place}: {loss["type"]!r} is not a registered loss. Is it spelt right, and is its '
            'module among custom_imports?'
        )
    return found


def _places(place: str, head: Component) -> dict[str, Component]:
    several = isinstance(head.get('loss_decode'), (list, tuple))
    return {f'{place}.{i}' if several else place: loss for i, loss in enumerate(losses(head))}


def _is_pixelwise(loss: Component, head: Component) -> bool:
    """Whether a loss is a cross-entropy of the pixels."""
    is_entropy = component_class(loss) in (CrossEntropyLoss, OhemCrossEntropy)
    return is_entropy and not loss.get('use_mask') and not _scores_queries(loss, head)


def _why_kept(loss: Component, head: Component, new: list[Component]) -> str:
    """Why a loss of a head stays; empty if it is to be replaced."""
    if _same(loss, new, head):
        return ''
    if not _is_pixelwise(loss, head):
        return 'it is no cross-entropy of the pixels'
    if argument(head, 'out_channels') == 1:
        unfit = [one for one in new if not parameter(component_class(one), 'use_sigmoid')]
        return f'{type_name(unfit[0])} does not take the one channel of the head' if unfit else ''
    if loss.get('use_sigmoid'):
        return 'its sigmoids score each class alone, which no softmax loss can stand in for'
    return ''


def _same(loss: Component, new: list[Component], head: Component) -> Component | None:
    """The new loss of which this one is an earlier copy, in a head that has them all."""
    if not set(map(component_class, new)) <= set(map(component_class, losses(head))):
        return None
    for one in new:
        same_output = (
            component_class(one) is not CrossEntropyLoss
            or argument(head, 'out_channels') == 1
            or bool(one.get('use_sigmoid')) == bool(loss.get('use_sigmoid'))
        )
        if component_class(one) is component_class(loss) and same_output:
            return one
    return None


def _scores_queries(loss: Component, head: Component) -> bool:
    # By this name a head that predicts masks (SAN) finds what classifies its queries.
    return 'loss_cls' in head or loss.get('loss_name', '').startswith('loss_cls')


def _refusal(
    path: str, head: Component, cfg: Config, new: list[Component], kept: dict[str, str]
) -> str:
    names = ' + '.join(map(type_name, new))
    place = f'model.{path} ({type_name(head)})'
    if type_name(segmentor(cfg.model)) == 'DepthEstimator':
        return (
            f'{place} predicts depth, which has no classes: {names} has nothing to '
            'balance there. Remove the loss base'
        )
    queries = [p for p, loss in zip(kept, losses(head), strict=True) if _scores_queries(loss, head)]
    if queries or 'loss_cls' in head:
        classifier = queries[0] if queries else f'model.{path}.loss_cls'
        return (
            f'{place} classifies queries and predicts a mask of each, so that no loss of '
            f'it scores pixels, which {names} does. Its classes are weighed by '
            f'{classifier}.class_weight (one number a class, and one for "no object"): remove the '
            'loss base and set that'
        )
    if not kept:
        return f'{place} has no loss_decode that {names} could take the place of'
    trained = ', '.join(
        f'{type_name(x)} ({w})' for x, w in zip(losses(head), kept.values(), strict=True)
    )
    return (
        f'{place}, which predicts, trains with {trained}, so that {names} takes the place of '
        f'nothing there. To replace it on purpose:\n    {_line(path, new)}'
    )


def _line(path: str, new: list[Component]) -> str:
    """What to write into a config to set the losses of a head."""
    values = [
        ', '.join(
            f'{k}={v!r}'
            for k, v in {'type': type_name(loss), **loss}.items()
            if k != 'class_counts'
        )
        for loss in new
    ]
    value = ', '.join(f'dict({v})' for v in values)
    if len(new) > 1:
        value = f'[{value}]'
    keys = [*path.split('.'), 'loss_decode']
    if any(key.isdigit() for key in keys):
        # Of a list in a base no single element can be changed.
        return f'model.{".".join(keys)} = {value}'
    value = value.replace('dict(', 'dict(_delete_=True, ', len(new) == 1)
    for key in reversed(keys):
        value = f'{key}={value}' if key == 'loss_decode' else f'{key}=dict({value})'
    return f'model = dict({value})'


def _replaced(loss: Component, new: Component, head: Component) -> ConfigDict:
    replaced = ConfigDict(copy.deepcopy(new))
    replaced['loss_weight'] = new.get('loss_weight', 1.0) * loss.get('loss_weight', 1.0)
    kind = component_class(new)
    default = parameter(component_class(loss), 'loss_name')
    if 'loss_name' in loss and (default is None or loss['loss_name'] != default.default):
        replaced['loss_name'] = loss['loss_name']
    if 'ignore_label' in loss and parameter(kind, 'ignore_index'):
        replaced['ignore_index'] = loss['ignore_label']
    if argument(head, 'out_channels') == 1:
        replaced['use_sigmoid'] = True
    # Counts of another dataset are then refused when the model is built.
    if needs_class_counts(new) and parameter(kind, 'num_classes'):
        replaced['num_classes'] = head.get('num_classes')
    return replaced


def _in_words(loss: Component, replaced: list[Component]) -> str:
    dropped = ', '.join(sorted(loss.keys() - NOT_DROPPED - set().union(*replaced)))
    text = f'{type_name(loss)} -> {" + ".join(map(type_name, replaced))}'
    return f'{text} ({dropped} dropped)' if dropped else text
