"""DRW: weigh the classes only once the feature has been learnt from all samples alike."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.registry import HOOKS
from torch import Tensor, nn

from ..functional import check_shapes, class_balanced_weight
from ..functional.checks import compute_dtype
from ..losses.class_counts import ClassCountsSource, load_class_counts

NORMALIZATIONS = ('batch', 'classes')


@HOOKS.register_module()
class DeferredReweightingHook(Hook):
    """Deferred re-weighting: equal weights until ``begin``, class-balanced weights from then on.

        L = sum_n w_{y_n} L_n / sum_n w_{y_n},    w_c = (1 - b) / (1 - b^N_c)

    over the batch, of all ranks, with N_c the training samples of class c. The loss is that of
    the model's head, and gets the weights as the ``weight`` of its samples: LDAMLoss (LDAM-DRW),
    WeightedFocalLoss (Focal-DRW), cross-entropy and the class-weighted losses here, and the stock
    losses of mmpretrain, take it. Whether weights are due follows from the runner's progress
    alone, so a resumed run goes on with the right ones.

    Args:
        begin: First epoch with weights, counted from 0; iteration, where training counts those.
        beta: b in [0, 1).
        class_counts: N_c: a list or a file, as LDAMLoss takes them; None to count the labels of
            the training set.
        normalization: 'batch': as above; 'classes': L = sum_n w_{y_n} L_n / N with the weights of
            all C classes of sum C, as the source does for focal loss.

    Raises:
        ValueError: An argument out of its range; from training, a training set that does not tell
            its labels, counts for another number of classes, or soft labels.

    Example:
        >>> custom_hooks = [dict(type='DeferredReweightingHook', begin=60)]

    Source: Cao et al. 2019, Sec. 3.3; Cui et al. 2019 for the weights.
    """

    def __init__(
        self,
        begin: int,
        beta: float = 0.9999,
        class_counts: ClassCountsSource | None = None,
        normalization: str = 'batch',
    ) -> None:
        if begin < 0:
            raise ValueError(f'begin must be >= 0, got {begin}')
        if not 0 <= beta < 1:
            raise ValueError(f'beta must be in [0, 1), got {beta}')
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f'normalization must be one of {NORMALIZATIONS}, got {normalization!r}'
            )
        self.normalization = normalization
        self.begin = begin
        self.beta = beta
        self.class_counts = class_counts
        self.is_due = False

    def before_train(self, runner: Any) -> None:
        if self.class_counts is None:
            counts = count_labels(runner.train_loop.dataloader.dataset)
        else:
            counts = load_class_counts(self.class_counts)
        self.weight = class_balanced_weight(counts, self.beta)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        loss = model.head.loss_module
        self.handle = loss.register_forward_pre_hook(self._add_weight, with_kwargs=True)

    def after_train(self, runner: Any) -> None:
        self.handle.remove()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        self.is_due = (runner.iter if by_iter else runner.epoch) >= self.begin

    def _add_weight(self, loss: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        if not self.is_due:
            return None
        logits, target = args
        return args, {**kwargs, 'weight': self.sample_weight(logits, target)}

    def sample_weight(self, logits: Tensor, target: Tensor) -> Tensor:
        """w_{y_n} as ``normalization`` says, (N,), in the type that losses compute in."""
        check_shapes(logits, target)
        if len(self.weight) != logits.shape[1]:
            raise ValueError(
                f'DeferredReweightingHook has counts of {len(self.weight)} classes, the logits '
                f'have {logits.shape[1]}: check class_counts and num_classes of the head'
            )
        weight = self.weight.to(logits.device)[target]
        if self.normalization == 'classes':
            return weight.to(compute_dtype(logits))
        total = torch.stack([weight.sum(), weight.new_tensor(len(weight))])
        all_reduce(total)
        mean = (total[0] / total[1]).clamp_min(torch.finfo(total.dtype).tiny)
        return (weight / mean).to(compute_dtype(logits))


def count_labels(dataset: Any) -> Tensor:
    """N_c, the samples of each class, (C,), of an mmpretrain dataset.

    Raises:
        ValueError: A wrapper that does not tell the labels of the dataset in it.
    """
    if not hasattr(dataset, 'get_gt_labels'):
        raise ValueError(
            f'{type(dataset).__name__} does not tell its labels, which are counted: give it '
            'get_gt_labels (or give DeferredReweightingHook class_counts)'
        )
    classes = dataset.metainfo.get('classes') or ()
    return torch.bincount(torch.as_tensor(dataset.get_gt_labels()), minlength=len(classes))
