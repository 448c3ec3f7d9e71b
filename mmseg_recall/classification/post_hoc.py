"""Classifiers made from a trained one: tau-normalisation, and learnable weight scaling (LWS).

Both have the keys of a LinearClsHead, so that its checkpoint is their ``load_from``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TauNormalizedHead(LinearClsHead):
    """A trained classifier whose weights are rescaled by a power of their norm; not to be trained.

        z_c = w_c . x / ||w_c||^tau

    Training on many samples makes w_c long, which favours class c; tau takes that back. The bias
    of the checkpoint is not used, as in the source.

    Args:
        num_classes: C.
        in_channels: Channels of the feature.
        tau: >= 0. With 0 only the bias is gone, with 1 all weights have norm 1. To be chosen on
            the validation set.
        kwargs: Of LinearClsHead.

    Raises:
        ValueError: tau < 0.

    Example:
        >>> head = TauNormalizedHead(num_classes=2, in_channels=1, tau=0.5)
        >>> _ = head.load_state_dict({'fc.weight': torch.tensor([[9.0], [4.0]])}, strict=False)
        >>> head((torch.ones(1, 1),)).detach()
        tensor([[3., 2.]])

    Source: Kang et al. 2020, Sec. 4, "tau-normalized classifier".
    """

    def __init__(self, num_classes: int, in_channels: int, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if not 0 <= tau < float('inf'):
            raise ValueError(f'tau must be >= 0 and finite, got {tau}')
        self.tau = tau

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        weight = self.fc.weight
        # A class whose weights are all zero keeps the logit 0.
        norm = weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return F.linear(self.pre_logits(feats), weight / norm**self.tau)


@MODELS.register_module()
class LWSHead(LinearClsHead):
    """Learnable weight scaling: of a trained model, only one factor a class is trained.

        z_c = s_c (w_c . x + b_c)

    s starts at 1, which is the trained classifier. w and b are frozen, and no gradient reaches
    the backbone; a backbone with batch normalisation has to keep its running statistics, too,
    which takes ``frozen_stages=4, norm_eval=True`` in a ResNet. The source draws the classes
    equally often for this training.

    Args:
        num_classes: C.
        in_channels: Channels of the feature.
        kwargs: Of LinearClsHead.

    Example:
        >>> head = LWSHead(num_classes=3, in_channels=8)
        >>> [name for name, p in head.named_parameters() if p.requires_grad]
        ['scale']

    Source: Kang et al. 2020, Sec. 4, "learnable weight scaling".
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.fc.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        return super().pre_logits(feats).detach()

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.scale * super().forward(feats)
