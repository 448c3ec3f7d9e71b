"""LDAM: cross-entropy with a margin that is wider for rarer classes, and its classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..functional import check_shapes
from ..functional.checks import compute_dtype, widest
from ..losses.base import StatisticsBalancedLoss
from ..losses.class_counts import ClassCountsSource


def ldam_margin(samples: Tensor, max_margin: float = 0.5) -> Tensor:
    """D_c = m (min_k N_k / N_c)^(1/4), the minimum over the classes seen.

    Args:
        samples: N_c, (C,), non-negative, not all zero.
        max_margin: m, the margin of the rarest class; a class never seen has it, too.

    Returns:
        (C,) float64.

    Example:
        >>> ldam_margin(torch.tensor([16, 1]))
        tensor([0.2500, 0.5000], dtype=torch.float64)

    Source: Cao et al. 2019, Sec. 3.2, with the constant that makes the largest margin m.
    """
    fewest = widest(samples[samples > 0].min())
    return max_margin * (fewest / widest(samples).clamp_min(fewest)) ** 0.25


@MODELS.register_module()
class LDAMLoss(StatisticsBalancedLoss):
    """Label-distribution-aware margin loss.

        L = - (1 / N) sum_n log softmax(s (z_n - D_{y_n} e_{y_n}))_{y_n}
        D_c = m (min_k N_k / N_c)^(1/4)

    with e_y the unit vector of class y and N_c the training samples of class c; a class never
    seen takes no part. The logits are meant to be cosines: see :class:`CosineClsHead`. For
    LDAM-DRW add :class:`~mmseg_recall.classification.deferred_reweighting.DeferredReweightingHook`.

    Args:
        class_counts: Training samples of each class, or a file, as
            :class:`~mmseg_recall.losses.base.StatisticsBalancedLoss` takes them.
        max_margin: m > 0, the margin of the rarest class.
        scale: s > 0.
        kwargs: Of StatisticsBalancedLoss. ignore_index is None unless it is given.

    Attributes:
        last_counts: As in every class-weighted loss, but its predictions are those of the logits
            with the margin, which the true class wins less often.

    Raises:
        ValueError: An argument out of its range; see StatisticsBalancedLoss for the counts.

    Example:
        >>> LDAMLoss(class_counts=[16, 1], scale=1)(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.9741)

    Source: Cao et al. 2019, Sec. 3.2; s as its authors run it.
    """

    default_name = 'loss_ldam'
    margin: Tensor

    def __init__(
        self,
        class_counts: ClassCountsSource | None = None,
        max_margin: float = 0.5,
        scale: float = 30.0,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts, ignore_index=ignore_index, **kwargs)
        for name, value in (('max_margin', max_margin), ('scale', scale)):
            if not 0 < value < float('inf'):
                raise ValueError(f'{name} must be positive and finite, got {value}')
        self.scale = scale
        margin = ldam_margin(self.class_counts, max_margin)
        self.register_buffer('margin', margin, persistent=False)

    def static_weight(self, pixels: Tensor) -> Tensor:
        return (pixels > 0).double()

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        check_shapes(logits, target)
        num_classes = logits.shape[1]
        self.check_length(num_classes)
        logits = logits.to(compute_dtype(logits))
        of_class = (1, num_classes, *[1] * (logits.dim() - 2))
        ids = torch.arange(num_classes, device=logits.device).view(of_class)
        margin = self.margin.to(logits.dtype).view(of_class)
        margin = torch.where(target.long().unsqueeze(1) == ids, margin, 0)
        return super().compute(self.scale * (logits - margin), target, pixel_weight, ignore_index)


@MODELS.register_module()
class CosineClsHead(LinearClsHead):
    """The linear classifier of LDAM: the logits are cosines, in [-1, 1].

        z_c = w_c . x / (||w_c|| ||x||)

    Args:
        num_classes: C.
        in_channels: Channels of the feature.
        init_cfg: Of ``fc``; None for weights whose norm is about 1.
        kwargs: Of LinearClsHead.

    Example:
        >>> head = CosineClsHead(num_classes=10, in_channels=4)
        >>> bool(head((torch.randn(2, 4),)).abs().max() <= 1)
        True

    Source: Cao et al. 2019, Sec. 3.2: the last feature and the weights have norm 1.
    """

    def __init__(
        self, num_classes: int, in_channels: int, init_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        # The gradient of a cosine grows as the norm falls: the 0.01 of LinearClsHead is too small.
        init_cfg = init_cfg or dict(type='Normal', layer='Linear', std=in_channels**-0.5)
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.fc = nn.Linear(in_channels, num_classes, bias=False)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return F.linear(F.normalize(self.pre_logits(feats)), F.normalize(self.fc.weight))
