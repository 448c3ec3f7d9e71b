"""BBN: two branches, one of images as they come and one of rare classes, mixed as training goes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import DATA_SAMPLERS, HOOKS, MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import BatchSampler

from .deferred_reweighting import count_labels


def reversed_sample_weight(labels: Tensor, counts: Tensor) -> Tensor:
    """Probability of each sample, so that class c is drawn in proportion to 1 / N_c.

        P(n) = (1 / N_{y_n}) / N_{y_n} / sum_c (1 / N_c),    the sum over the classes with samples

    Args:
        labels: y_n, (N,).
        counts: N_c, the samples of each class among them, (C,).

    Returns:
        (N,) float64, with sum 1.

    Example:
        >>> reversed_sample_weight(torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1])).tolist()[2:]
        [0.08333333333333333, 0.75]

    Source: Zhou et al. 2020, Sec. 4.2, the reversed sampler.
    """
    of_class = counts.double()[labels] ** -2.0
    return of_class / of_class.sum()


@DATA_SAMPLERS.register_module()
class BilateralBatchSampler(BatchSampler):
    """Batches of both branches of BBN: B images as they come, and B in reversed proportion.

    The first half of a batch is that of the sampler. The second half is drawn with replacement,
    class c in proportion to 1 / N_c. An epoch has as many batches as without it, of twice the
    images. What is drawn depends on the seed and the epoch of the sampler alone.

    Args:
        sampler: mmengine's DefaultSampler of a dataset that tells its labels.
        batch_size: B.
        drop_last: Leave out a last batch of fewer images.

    Raises:
        ValueError: Another sampler, or a dataset that does not tell its labels.

    Example:
        >>> train_dataloader = dict(batch_sampler=dict(type='BilateralBatchSampler'))

    Source: Zhou et al. 2020, Sec. 4.2.
    """

    sampler: DefaultSampler

    def __init__(self, sampler: DefaultSampler, batch_size: int, drop_last: bool = False) -> None:
        if not isinstance(sampler, DefaultSampler):
            raise ValueError(
                f'BilateralBatchSampler takes a DefaultSampler, got {type(sampler).__name__}'
            )
        super().__init__(sampler, batch_size, drop_last)
        counts = count_labels(sampler.dataset)
        labels = torch.as_tensor(sampler.dataset.get_gt_labels())
        self.weight = reversed_sample_weight(labels, counts)

    def __iter__(self) -> Iterator[list[int]]:
        sampler = self.sampler
        generator = torch.Generator().manual_seed(sampler.seed + sampler.epoch)
        drawn = torch.multinomial(self.weight, sampler.total_size, True, generator=generator)
        # Every rank draws the same, and takes its share as it does of the sampler.
        mine = iter(drawn[sampler.rank :: sampler.world_size].tolist())
        for batch in super().__iter__():
            yield batch + list(islice(mine, len(batch)))


@MODELS.register_module()
class BBNHead(LinearClsHead):
    """Bilateral branches on one feature x, and a classifier of their mixture.

        f_c = x + relu(A_c x),    f_r = x + relu(A_r x)
        z = W_c (a f_c(x_c)) + W_r ((1 - a) f_r(x_r)) + b
        L = a L(z, y_c) + (1 - a) L(z, y_r)

    x_c, y_c are the first half of the batch, images as they come, and x_r, y_r the second, in
    which rare classes are common (:class:`BilateralBatchSampler`); a falls from 1 to 0
    (:class:`CumulativeLearningHook`). In inference both branches see the image, and a is 1 / 2.

    Args:
        num_classes: C.
        in_channels: Channels of the feature.
        kwargs: Of LinearClsHead.

    Attributes:
        alpha: a of the epoch; None until the hook has set it.

    Raises:
        ValueError: From the loss, a batch without two halves, or no alpha.

    Example:
        >>> head = BBNHead(num_classes=3, in_channels=8)
        >>> head.alpha = 0.75
        >>> samples = [DataSample().set_gt_label(y) for y in (0, 0, 1, 2)]
        >>> list(head.loss((torch.zeros(4, 8),), samples))
        ['loss', 'alpha']

    Source: Zhou et al. 2020, Sec. 4. There a branch is the last residual block of the ResNet,
    before the average over positions; here it is a residual block on the average, so that any
    backbone will do. The authors' code doubles z.
    """

    alpha: float | None = None

    def __init__(self, num_classes: int, in_channels: int, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.conventional = nn.Linear(in_channels, in_channels)
        self.rebalancing = nn.Linear(in_channels, in_channels)
        self.fc = nn.Linear(2 * in_channels, num_classes)

    def mixed(self, conventional: Tensor, rebalancing: Tensor, alpha: float) -> Tensor:
        """z of pairs of features, (N, in_channels) each, (N, C)."""
        f_c = conventional + self.conventional(conventional).relu()
        f_r = rebalancing + self.rebalancing(rebalancing).relu()
        return self.fc(torch.cat([alpha * f_c, (1 - alpha) * f_r], dim=1))

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        feature = self.pre_logits(feats)
        return self.mixed(feature, feature, 0.5)

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """``loss`` of a batch of two halves, and ``alpha`` for the log.

        Args:
            feats: Features of the backbone's stages; the last one, (2 B, in_channels), is used.
            data_samples: 2 B samples, each with its gt_label.
            kwargs: Handed on to the loss.
        """
        feature = self.pre_logits(feats)
        half, odd = divmod(len(feature), 2)
        if self.alpha is None or odd:
            raise ValueError(
                f'BBNHead got {len(feature)} samples and alpha={self.alpha}: it takes the batches '
                'of BilateralBatchSampler and needs CumulativeLearningHook; the base '
                'configs/classification/_base_/methods/bbn.py has both'
            )
        logits = self.mixed(feature[:half], feature[half:], self.alpha)
        of_c = self._get_loss(logits, data_samples[:half], **kwargs)['loss']
        of_r = self._get_loss(logits, data_samples[half:], **kwargs)['loss']
        return dict(
            loss=self.alpha * of_c + (1 - self.alpha) * of_r, alpha=logits.new_tensor(self.alpha)
        )


@HOOKS.register_module()
class CumulativeLearningHook(Hook):
    """Sets the alpha of a BBNHead: from the conventional branch to the re-balancing one.

        a = 1 - (T / T_max)^2

    with T the epoch, counted from 0 (iteration, where training counts those). It follows from
    the runner's progress alone, so a resumed run goes on with the right one.

    Raises:
        ValueError: From training, a head that is no BBNHead, or batches without two halves.

    Example:
        >>> custom_hooks = [dict(type='CumulativeLearningHook')]

    Source: Zhou et al. 2020, Sec. 4.3.
    """

    def before_train(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        batch_sampler = runner.train_loop.dataloader.batch_sampler
        if not isinstance(model.head, BBNHead) or not isinstance(
            batch_sampler, BilateralBatchSampler
        ):
            raise ValueError(
                'CumulativeLearningHook is for a BBNHead and a BilateralBatchSampler, got '
                f'{type(model.head).__name__} and {type(batch_sampler).__name__}: use the base '
                'configs/classification/_base_/methods/bbn.py'
            )
        self.head = model.head

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        now, end = (runner.iter, runner.max_iters) if by_iter else (runner.epoch, runner.max_epochs)
        self.head.alpha = 1 - (now / end) ** 2
