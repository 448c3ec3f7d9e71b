"""The head of the Simple Decoupled Network: one classifier trains the feature, another is used."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

RECALL = dict(type='RecallLoss')


@MODELS.register_module()
class SDNHead(LinearClsHead):
    """Two linear classifiers g and h on one feature f(x): g trains it, h is what classifies.

        L = L_g(g(f(x)), y) + L_h(h(stop_gradient(f(x))), y)

    The gradient of L_h ends at the classifier h, so that its weights may be as uneven as the
    classes are without a trace in the backbone. Inference is that of a LinearClsHead: h is its
    ``fc``, under the same keys of a checkpoint. g is the LinearClsHead ``feature_head``, which
    :func:`drop_feature_head` leaves out of a checkpoint.

    Args:
        num_classes: C.
        in_channels: Channels of the feature.
        loss_classifier: L_h; a ClassBalancedLoss (Appendix A.1) or an InverseFrequencyLoss
            (Sec. 4.5).
        loss: L_g; dict(type='CrossEntropyLoss') is the paper's baseline SDN-CE.
        kwargs: Of LinearClsHead: topk, cal_acc (the accuracy of h), init_cfg (of g and of h).

    Example:
        >>> import torch
        >>> balanced = dict(type='ClassBalancedLoss', class_counts=[90, 9, 1])
        >>> head = SDNHead(num_classes=3, in_channels=8, loss_classifier=balanced)
        >>> sample = DataSample().set_gt_label(2)
        >>> list(head.loss((torch.zeros(1, 8),), [sample]))
        ['loss_feature', 'loss_classifier']

    Source: Sec. 4.5, Appendix A.1, Fig. 5.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss_classifier: dict,
        loss: dict = RECALL,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, loss=loss_classifier, **kwargs)
        init = {'init_cfg': kwargs['init_cfg']} if 'init_cfg' in kwargs else {}
        self.feature_head = LinearClsHead(num_classes, in_channels, loss=loss, **init)

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """``loss_feature`` of g and ``loss_classifier`` of h; the accuracy of h with cal_acc.

        Args:
            feats: Features of the backbone's stages; the last one, (N, in_channels), is used.
            data_samples: N samples, each with its gt_label.
            kwargs: Handed on to both losses.

        Raises:
            ValueError: Soft labels (mixup, CutMix), from a loss of this package.
        """
        feature = self.pre_logits(feats)
        of_h = super().loss((feature.detach(),), data_samples, **kwargs)
        of_g = self.feature_head.loss((feature,), data_samples, **kwargs)
        # Not 'loss': under that name mmengine logs the total.
        return dict(loss_feature=of_g['loss'], loss_classifier=of_h.pop('loss'), **of_h)


def drop_feature_head(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model with an SDNHead without g, as the same model with a LinearClsHead has.

    Raises:
        ValueError: There is no g.

    Example:
        >>> drop_feature_head({'head.fc.bias': 0, 'head.feature_head.fc.bias': 1})
        {'head.fc.bias': 0}
    """
    kept = {key: value for key, value in state_dict.items() if 'feature_head.' not in key}
    if len(kept) == len(state_dict):
        raise ValueError('no weights of a feature_head: this is no model with an SDNHead')
    return kept
