"""Reads configs of mmseg: heads, their losses, classes and datasets. Every room asks here."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmseg import registry
from mmseg.registry import MODELS

Component = dict[str, Any]
"""The config of one part: its ``type`` and its arguments."""

CROSS_ENTROPY = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
THRESHOLD = 0.3
"""Of mmseg's heads of one channel, unless they are told another."""
THRESHOLDS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
"""Those that a trained head of one channel is tested with."""
# What says where a loss takes part, not what it is.
NOT_THE_LOSS = {
    *('type', '_scope_', 'loss_weight', 'loss_name', 'class_counts', 'num_classes'),
    *('use_sigmoid', 'avg_non_ignore', 'ignore_index'),
}


def is_classification(cfg: Config) -> bool:
    """Whether a config is one of mmpretrain; all others are of mmseg.

    Example:
        >>> is_classification(Config(dict(default_scope='mmpretrain')))
        True
    """
    return cfg.get('default_scope') == 'mmpretrain'


def training_length(cfg: Config) -> tuple[int, str]:
    """How long a config trains, and in which unit: 0 where it does not train.

    Example:
        >>> training_length(Config(dict(train_cfg=dict(by_epoch=True, max_epochs=8))))
        (8, 'epochs')
    """
    train_cfg = cfg.get('train_cfg') or {}
    unit = 'iterations' if 'max_iters' in train_cfg else 'epochs'
    return train_cfg.get('max_iters') or train_cfg.get('max_epochs') or 0, unit


def as_list(value: Any) -> list[Any]:
    """What mmseg takes as one or several, as several; None is none of them."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def type_name(component: Component) -> str:
    """Name of a ``type``, be it registered, with a scope or a module before it, or a class.

    Example:
        >>> type_name(dict(type='mmseg.FCNHead')), type_name(dict(type=dict))
        ('FCNHead', 'dict')
    """
    kind = component.get('type', 'unknown')
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def component_class(component: Component) -> type | None:
    """The class that a ``type`` names; None where none is registered under it.

    Of a class that is named by its module, too, as in a dumped pure-Python config. No module is
    imported for it: a stranger's config may be asked.
    """
    kind = component['type']
    if not isinstance(kind, str):
        return kind
    name = kind.removeprefix('mmseg.')
    if '.' not in name:
        return MODELS.get(name)
    module, _, name = kind.rpartition('.')
    return getattr(sys.modules.get(module), name, None)


def rename(component: Component, name: str) -> None:
    """Name another class of mmseg's registry, with a scope where there was one.

    Example:
        >>> head = dict(type='mmseg.FCNHead')
        >>> rename(head, 'FusedFCNHead')
        >>> head['type']
        'mmseg.FusedFCNHead'
    """
    kind = component['type']
    component['type'] = name if isinstance(kind, str) and '.' not in kind else f'mmseg.{name}'


def parameter(cls: type | None, name: str) -> inspect.Parameter | None:
    """The parameter that a class, or one that it hands its ``**kwargs`` on to, takes by a name.

    Example:
        >>> class Base:
        ...     def __init__(self, size=3): ...
        >>> class Derived(Base):
        ...     def __init__(self, **kwargs): ...
        >>> parameter(Derived, 'size').default
        3
    """
    for owner in getattr(cls, '__mro__', ()):
        if '__init__' not in vars(owner):
            continue
        parameters = inspect.signature(owner.__init__).parameters
        if name in parameters:
            return parameters[name]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return None


def argument(component: Component, name: str) -> Any:
    """What a component is given by a name, or else its class's default; None if it has neither.

    Example:
        >>> argument(dict(type='FCNHead', ignore_index=0), 'ignore_index')
        0
        >>> argument(dict(type='FCNHead'), 'ignore_index')
        255
    """
    if name in component:
        return component[name]
    found = parameter(component_class(component), name)
    return None if found is None or found.default is found.empty else found.default


def segmentor(model: Component) -> Component:
    """The config of the segmentor itself: under test-time augmentation it is inside another."""
    return model.get('module', model)


def heads(model: Component) -> dict[str, Component]:
    """All heads that losses train, by their place in the model, to be changed in place.

    Of K-Net's iterative head it is the one inside, which generates the kernels.

    Example:
        >>> inner = dict(type='FCNHead')
        >>> knet = dict(type='IterativeDecodeHead', kernel_generate_head=inner)
        >>> list(heads(dict(decode_head=knet, auxiliary_head=[inner, inner])))
        ['decode_head.kernel_generate_head', 'auxiliary_head.0', 'auxiliary_head.1']
    """
    found: dict[str, Component] = {}
    for key in ('decode_head', 'auxiliary_head'):
        given = segmentor(model).get(key)
        for index, head in enumerate(as_list(given)):
            path = f'{key}.{index}' if isinstance(given, (list, tuple)) else key
            if 'kernel_generate_head' in head:
                found[f'{path}.kernel_generate_head'] = head['kernel_generate_head']
            else:
                found[path] = head
    return found


def predicting_head(model: Component) -> Component:
    """The decode head that predicts: of a cascade's list of heads the last one."""
    return as_list(segmentor(model)['decode_head'])[-1]


def predicting_path(model: Component) -> str:
    """Which of :func:`heads` trains what predicts.

    Example:
        >>> predicting_path(dict(decode_head=[dict(type='FCNHead'), dict(type='PointHead')]))
        'decode_head.1'
    """
    return [path for path in heads(model) if path.startswith('decode_head')][-1]


def losses(head: Component) -> list[Component]:
    """What a head trains with: its ``loss_decode``, or the default of its class; [] if neither."""
    return as_list(argument(head, 'loss_decode'))


def needs_class_counts(loss: Component) -> bool:
    """Whether a loss takes the pixel counts of the training set.

    Example:
        >>> [needs_class_counts(dict(type=t)) for t in ('InverseFrequencyLoss', 'RecallLoss')]
        [True, False]
    """
    return parameter(component_class(loss), 'class_counts') is not None


def datasets(dataset: Component) -> Iterator[Component]:
    """The datasets inside wrappers such as RepeatDataset and ConcatDataset.

    Example:
        >>> pair = dict(type='ConcatDataset', datasets=[dict(type='A'), dict(type='B')])
        >>> [one['type'] for one in datasets(dict(type='RepeatDataset', dataset=pair))]
        ['A', 'B']
    """
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
    for one in as_list(inner):
        yield from datasets(one)


def loss_name(*components: Component) -> str:
    """Names of losses with their options, such as ``'SoftmaxFocal gamma=2'``.

    Example:
        >>> loss_name(dict(type='RecallLoss', momentum=0.5), dict(type='DiceLoss', loss_weight=3.0))
        'Recall momentum=0.5 + Dice'
        >>> loss_name(dict(type='RecallLoss', schedule=dict(kind='linear')))
        'Recall schedule=linear'
    """
    names = []
    for loss in components:
        name = type_name(loss)
        if name == 'CrossEntropyLoss':
            name = 'BinaryCE' if loss.get('use_sigmoid') else 'CE'
        options = {k: v for k, v in loss.items() if k not in NOT_THE_LOSS and v is not None}
        listed = (f'{k}={_in_short(v)}' for k, v in sorted(options.items()))
        names.append(' '.join([name.removesuffix('Loss'), *listed]))
    return ' + '.join(names)


def _in_short(option: Any) -> str:
    """Of a dict, as a schedule is one, its values."""
    return '/'.join(map(str, option.values())) if isinstance(option, dict) else str(option)


def imbalance_losses(cfg: Config) -> list[Component]:
    """What the config's heads are to train with in the place of cross-entropy; [] of most.

    It stands in the top-level ``imbalance_loss``; in configs of older versions in ``loss_decode``,
    beside ``runner_type='LossRunner'``.
    """
    is_old = cfg.get('runner_type') == 'LossRunner'
    return as_list(cfg.get('imbalance_loss', cfg.get('loss_decode') if is_old else None))


def trained_losses(cfg: Config) -> list[Component]:
    """What the head that predicts trains with; of a config that is yet to be swapped, will.

    Nothing is imported for it, so that a stranger's config can be asked.
    """
    new = imbalance_losses(cfg)
    if 'model' not in cfg:
        return new
    own = as_list(heads(cfg.model)[predicting_path(cfg.model)].get('loss_decode', CROSS_ENTROPY))
    is_swapped = {type_name(loss) for loss in new} <= {type_name(loss) for loss in own}
    return own if is_swapped else new


def parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every dict inside a config, outer ones first, to be changed in place."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        yield node
        # Not by the items of mmengine's dict, which import what is lazy.
        node = list(dict.values(node))
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from parts(part)


def components(cfg: Config) -> Iterator[Component]:
    """Every dict inside a config that has a ``type``, outer ones first.

    Example:
        >>> model = dict(type='EncoderDecoder', decode_head=[dict(type='FCNHead')])
        >>> [type_name(part) for part in components(Config(dict(model=model)))]
        ['EncoderDecoder', 'FCNHead']
    """
    return (part for part in parts(cfg) if 'type' in part)


def name_types(cfg: Config) -> Config:
    """A copy of a config that names each class by its module, so that its dump can be loaded.

    Pure-Python configs give the class itself as ``type``, which is dumped as ``<class ...>``.

    Example:
        >>> from mmengine.optim import OptimWrapper
        >>> name_types(Config(dict(optim_wrapper=dict(type=OptimWrapper)))).optim_wrapper.type
        'mmengine.optim.optimizer.optimizer_wrapper.OptimWrapper'
    """
    cfg = copy.deepcopy(cfg)
    for component in components(cfg):
        kind = component['type']
        if callable(kind):
            # Of a function or a script it cannot be imported: it has to be registered.
            local = '<locals>' in kind.__qualname__ or kind.__module__ == '__main__'
            component['type'] = kind.__name__ if local else f'{kind.__module__}.{kind.__qualname__}'
    return cfg


def uses_plugin(cfg: Config) -> bool:
    """Whether a config names anything that this package registers."""
    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    ours = {
        name
        for one in registries
        for name, value in one.module_dict.items()
        if value.__module__.startswith('mmseg_recall.')
    }
    return any(type_name(component) in ours for component in components(cfg))


def import_with(cfg: Config, *modules: str) -> None:
    """Append to the modules that a config imports when it is loaded.

    Example:
        >>> cfg = Config(dict(custom_imports=dict(imports='my_dataset')))
        >>> import_with(cfg, 'mmseg_recall')
        >>> cfg.custom_imports.imports
        ['my_dataset', 'mmseg_recall']
    """
    present = cfg.get('custom_imports') or {}
    wanted = dict.fromkeys([*as_list(present.get('imports')), *modules])
    cfg.custom_imports = {'allow_failed_imports': False, **present, 'imports': list(wanted)}
