"""Show live what a loss weighs: each class's weight, recall and share of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmseg.registry import HOOKS
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..functional import ClassCounts, count_classes, recall
from ..functional.checks import valid_pixels, widest
from ..functional.engines.plain import nll_of_valid, sum_per_class
from ..losses import ClassWeightedLoss, SoftmaxFocalLoss


@HOOKS.register_module()
class ClassWeightHook(Hook):
    """Log each class's current weight, recall and pixel share, for every loss that weighs classes.

    They go to all of the visualizer's backends (``scalars.json``, TensorBoard, WandB, ...) as
    ``decode_head/weight/road``, ``decode_head/recall/road`` and ``decode_head/pixel_share/road``;
    the first part is the head's place in the model. They describe the batch of that iteration,
    over all ranks. A class without a pixel in the batch has weight and recall NaN.

    Class-weighted losses leave these numbers behind anyway. For :class:`SoftmaxFocalLoss` the
    weight is the mean of (1 - p)^gamma over the pixels of the class, computed in the iterations
    that log only. Any other loss is left alone.

    Args:
        interval: Iterations between two logs; None for the LoggerHook's.

    Example:
        >>> custom_hooks = [dict(type='ClassWeightHook')]

    Source: Sec. 4.4 and Fig. 4.
    """

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self.losses: dict[str, ClassWeightedLoss | SoftmaxFocalLoss] = {}
        self._focal: dict[SoftmaxFocalLoss, tuple[Tensor, ClassCounts]] = {}
        self._handles: list[RemovableHandle] = []
        self._is_due = False

    def before_train(self, runner: Any) -> None:
        if self.interval is None:
            self.interval = next(h.interval for h in runner.hooks if isinstance(h, LoggerHook))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.losses = {
            # One of several losses of a head, a ModuleList, is 'decode_head.1'.
            path.replace('.loss_decode', ''): module
            for path, module in model.named_modules()
            if isinstance(module, (ClassWeightedLoss, SoftmaxFocalLoss))
        }
        classes = _class_names(runner)
        for path, head in model.named_modules():
            outputs = getattr(head, 'num_classes', None)
            if hasattr(head, 'loss_decode') and outputs not in (None, len(classes)):
                runner.logger.warning(
                    f'{path} has {outputs} classes, and the training set names {len(classes)}: '
                    f'{", ".join(classes) or "none"}. Classes without a name are numbered'
                )
        for loss in self.losses.values():
            if isinstance(loss, SoftmaxFocalLoss):
                handle = loss.register_forward_hook(self._keep_focal, with_kwargs=True)
                self._handles.append(handle)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._is_due = self.every_n_inner_iters(batch_idx, self.interval)
        if self._is_due:
            # So that a loss that this iteration does not call is not logged with an old batch.
            for loss in self.losses.values():
                if isinstance(loss, ClassWeightedLoss):
                    loss.last_counts = None

    def _keep_focal(self, loss: SoftmaxFocalLoss, args: tuple, kwargs: dict, _: Tensor) -> None:
        if self._is_due:
            self._focal[loss] = focal_class_weight(loss, *args, **kwargs)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not self._is_due:
            return
        classes = _class_names(runner)
        scalars: dict[str, float] = {}
        for head, loss in self.losses.items():
            if isinstance(loss, SoftmaxFocalLoss):
                weight, counts = self._focal.pop(loss, (None, None))
            else:
                weight, counts = loss.last_weight, loss.last_counts
            if counts is not None and weight is not None:
                scalars |= class_scalars(head, classes, weight, counts)
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        while self._handles:
            self._handles.pop().remove()


def _class_names(runner: Any) -> Sequence[str]:
    metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', {})
    return metainfo.get('classes') or ()


def class_scalars(
    head: str, classes: Sequence[str], weight: Tensor, counts: ClassCounts
) -> dict[str, float]:
    """What is logged: ``{head}/{weight, recall, pixel_share}/{class}``.

    Args:
        head: First part of the names.
        classes: Names of the C classes; those without one are numbered.
        weight: (C,).
        counts: Of the same batch.

    Example:
        >>> one = torch.tensor([3, 1])
        >>> counts = ClassCounts(pixels=one, true_positives=one, predicted=one)
        >>> class_scalars('head', ('a', 'b'), torch.zeros(2), counts)['head/pixel_share/a']
        0.75
    """
    num_classes = len(weight)
    labels = [*classes, *(f'class {c}' for c in range(len(classes), num_classes))][:num_classes]
    share = widest(counts.pixels) / counts.pixels.sum()
    rows = torch.stack([widest(weight), recall(counts), share]).tolist()
    return {
        f'{head}/{name}/{label}': value
        for name, row in zip(('weight', 'recall', 'pixel_share'), rows, strict=True)
        for label, value in zip(labels, row, strict=True)
    }


@torch.no_grad()
def focal_class_weight(
    loss: SoftmaxFocalLoss,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, ClassCounts]:
    """Focal loss's implied class weight: the mean of (1 - p)^gamma over a class's pixels.

    Args:
        loss: Gives gamma, the default ignore_index, and whether to count over all ranks.
        logits: (N, C, ...); with ``target`` and ``ignore_index``, what the loss was called with.
        target: (N, ...), class ids.
        weight: Not used: the weight per pixel is no property of the class.
        ignore_index: Id of the pixels to leave out; None for the loss's.
        kwargs: Not used.

    Returns:
        Weight (C,), NaN for a class without a pixel, and the counts of the batch.

    Source: Sec. 4.4, with gamma = 1.
    """
    ignore = loss.ignore_index if ignore_index is None else ignore_index
    target, num_classes = target.long(), logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore)
    one_minus_p = -torch.expm1(-nll_of_valid(logits, target, valid))
    sums = sum_per_class(widest(one_minus_p**loss.gamma), target, valid, num_classes)
    counts = count_classes(logits.argmax(dim=1), target, num_classes, valid)
    if loss.sync_stats and get_world_size() > 1:
        total = torch.stack([sums, *(widest(c) for c in counts)])
        all_reduce(total)
        sums, counts = total[0], ClassCounts(*total[1:].long())
    return sums / counts.pixels, counts
