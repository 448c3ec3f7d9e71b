"""What a runner is built from, and dumps: a config in which all that it asks for is done."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from ..config import (
    Component,
    argument,
    component_class,
    heads,
    imbalance_losses,
    import_with,
    is_classification,
    losses,
    name_types,
    parts,
    uses_plugin,
)
from ..losses import SegmentationLoss
from ..losses.class_counts import load_class_counts, load_class_names, read_class_counts
from .fused_head import fuse_tails
from .logit_adjustment import adjust_logits
from .loss_swap import Report, swap_loss

KEYS = ('imbalance_loss', 'logit_adjustment', 'fused_tail')


def complete(cfg: Config) -> None:
    """Make a config that has just been read, or changed, what it is whoever reads on.

    A model is built from it without a runner, and it is dumped before there is one.
    """
    for part in parts(cfg):
        # What comes from `mmseg_recall::...` is in mmseg's registries.
        if part.get('_scope_') == 'mmseg_recall':
            part['_scope_'] = 'mmseg'
    if imbalance_losses(cfg) or 'logit_adjustment' in cfg:
        import_with(cfg, 'mmseg_recall')
    if isinstance(cfg.get('logit_adjustment'), dict) and isinstance(cfg.get('model'), dict):
        cfg.model = adjust_logits(cfg).model


def rewrite(cfg: Config, report: Report | None = None) -> Config:
    """Do what a config asks of this package, so that whoever reads the result need not know it.

    The losses of ``imbalance_loss`` take their places in the heads (:func:`swap_loss`), with the
    pixel counts as numbers instead of a file's name; with them the heads score their logits without
    upsampling them (:func:`fuse_tails`), by default on CPU, and as a top-level ``fused_tail`` says
    where it is given; ``logit_adjustment`` changes the segmentor (:func:`adjust_logits`); classes
    are given by name, and the package is among the ``custom_imports``.

    Args:
        cfg: Any config; it is left as it is.
        report: What was done to each head is appended to it.

    Returns:
        A copy, or the config itself where it asks nothing. Rewriting it again changes nothing.

    Raises:
        FileNotFoundError: The file of class counts that a loss needs is missing.
        KeyError, ValueError: See :func:`swap_loss`; a head has one class only, or 255 of more
            classes is the id that it ignores.
    """
    asks = imbalance_losses(cfg) or any(key in cfg for key in KEYS) or uses_plugin(cfg)
    if is_classification(cfg) or not asks:
        return cfg
    cfg = name_types(cfg)
    if 'logit_adjustment' in cfg:
        cfg = adjust_logits(cfg)
    if imbalance_losses(cfg):
        cfg = swap_loss(cfg, report)
    _read_counts(cfg)
    for path, head in heads(cfg.model).items():
        kinds = [(loss, component_class(loss)) for loss in losses(head)]
        ours = [x for x, k in kinds if isinstance(k, type) and issubclass(k, SegmentationLoss)]
        if ours:
            _check_classes(f'model.{path}', head)
        for loss in ours:
            if 'class_counts' in loss:
                _leave_out_ignored(loss, argument(head, 'ignore_index'))
    if cfg.get('fused_tail', 'imbalance_loss' in cfg and get_device() == 'cpu'):
        cfg = fuse_tails(cfg)
    import_with(cfg, 'mmseg_recall')
    return cfg


def _read_counts(cfg: Config) -> None:
    """Put the content of each file of class counts in its place."""
    for part in parts(cfg):
        source = part.get('class_counts')
        if isinstance(source, str) and Path(source).is_file():
            part['class_counts'] = read_class_counts(source)


def _check_classes(place: str, head: Component) -> None:
    classes, ignored = argument(head, 'num_classes'), argument(head, 'ignore_index')
    if classes == 1:
        raise ValueError(
            f'{place} has one class, which leaves nothing to tell apart: every loss is 0. For a '
            'thing and its background set num_classes=2 (and out_channels=1, if you like), with '
            'labels 0 and 1'
        )
    if classes is not None and ignored == 255 < classes:
        raise ValueError(
            f'{place} has {classes} classes, and ignore_index=255 is one of them, which would '
            'never be learnt. Give the head, the dataset and the evaluator an ignore_index that is '
            'no class, such as 65535, and labels of 16 bits'
        )


def _leave_out_ignored(loss: Component, ignored: int | None) -> None:
    """Count no pixel of a class that the head ignores."""
    counts = load_class_counts(loss['class_counts']).tolist()
    if ignored is not None and 0 <= ignored < len(counts):
        names = load_class_names(loss['class_counts'])
        counts[ignored] = 0
        loss['class_counts'] = dict(classes=names, pixels=counts) if names else counts
