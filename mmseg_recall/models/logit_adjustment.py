"""Post-hoc logit adjustment: a trained model, tested as if all classes were equally frequent."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.utils import OptSampleList
from torch import Tensor

from ..config import component_class, rename, segmentor, type_name
from ..functional import log_prior
from ..losses.class_counts import ClassCountsSource, load_class_counts
from .mixed import register_mixed

Segmentor: Any = object  # what it is mixed into: its attributes are those of EncoderDecoder


class LogitAdjusted(Segmentor):
    """Mixin for a segmentor: where it predicts, tau log pi is subtracted from its logits.

        prediction = argmax_c z_c - tau log pi_c,    pi_c = N_c / sum_k N_k

    over the training set's N_c, in whole and sliding inference, under test-time augmentation, and
    in an exported model. Training, and the state dict, are those of the segmentor: any trained
    checkpoint will do.

    For every stock segmentor that scores pixels, ``LogitAdjusted`` + its name is registered;
    :func:`adjust_logits` turns it on. For one of your own:
    ``class MyAdjusted(LogitAdjusted, MySegmentor)``.

    Args:
        class_counts: A list, or the JSON file of ``tools/class_statistics.py``; none may be 0.
        tau: >= 0; 0 changes no prediction, 1 divides the probabilities by the prior.
        args: Of the segmentor.
        kwargs: Of the segmentor.

    Raises:
        ValueError: tau < 0; counts that are none, 0, or not as many as the head has outputs.
        FileNotFoundError: No such file; the message is the command that writes it.

    Source: Menon et al. 2021, "Long-tail Learning via Logit Adjustment", post-hoc.
    """

    def __init__(
        self,
        *args: Any,
        class_counts: ClassCountsSource | None = None,
        tau: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if class_counts is None:
            raise ValueError(
                'logit_adjustment needs class_counts, the pixels of each class in the training '
                'set: a list, or the file that `python tools/class_statistics.py CONFIG` writes'
            )
        super().__init__(*args, **kwargs)
        if self.out_channels == 1:
            raise ValueError(
                'logit_adjustment needs a logit a class, and the decode head has one channel for '
                'two. There the threshold does the same: '
                f'--cfg-options model.decode_head.threshold=0.1 (now {self.decode_head.threshold})'
            )
        adjustment = log_prior(load_class_counts(class_counts), tau).float()
        if len(adjustment) != self.out_channels:
            raise ValueError(
                f'class_counts of the logit adjustment have {len(adjustment)} classes, the decode '
                f'head has {self.out_channels} outputs. Run '
                '`python tools/class_statistics.py CONFIG` for this data set'
            )
        self.register_buffer('adjustment', adjustment.view(-1, 1, 1), persistent=False)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Adjusted logits (N, C, H, W) of whole images, or of the windows of a sliding one."""
        return super().encode_decode(inputs, batch_img_metas) - self.adjustment

    def _forward(self, inputs: Tensor, data_samples: OptSampleList = None) -> Tensor:
        """Adjusted logits as the head gives them, which is what an export of the model traces."""
        return super()._forward(inputs, data_samples) - self.adjustment


def adjust_logits(cfg: Config) -> Config:
    """Turn on what the config's top-level ``logit_adjustment`` says.

    Args:
        cfg: A config with ``model`` and ``logit_adjustment``, a dict with ``tau``; it is left as it
            is. Where that gives no ``class_counts``, the config's top-level ones are taken.

    Returns:
        A copy of ``cfg``. Adjusting it again changes nothing.

    Raises:
        ValueError: The segmentor is not one that can be adjusted.

    Example:
        >>> model = dict(type='EncoderDecoder')
        >>> cfg = dict(model=model, logit_adjustment=dict(tau=0.5), class_counts=[3, 1])
        >>> adjust_logits(Config(cfg)).model
        {'type': 'LogitAdjustedEncoderDecoder', 'class_counts': [3, 1], 'tau': 0.5}
    """
    cfg = copy.deepcopy(cfg)
    model = segmentor(cfg.model)
    options = {'class_counts': cfg.get('class_counts'), **cfg.logit_adjustment}
    kind = component_class(model)
    if not (isinstance(kind, type) and issubclass(kind, LogitAdjusted)):
        if kind not in ADJUSTED:
            raise ValueError(
                f'logit_adjustment: the logits of {type_name(model)} cannot be adjusted; those of '
                f'{", ".join(sorted(cls.__name__ for cls in ADJUSTED))} can'
            )
        rename(model, ADJUSTED[kind].__name__)
    model.update(options)
    return cfg


# Those whose outputs are a score of each class for each pixel; module attributes, so that a model
# can be pickled.
ADJUSTED = register_mixed(
    LogitAdjusted,
    'LogitAdjusted',
    EncoderDecoder,
    lambda segmentor: segmentor.postprocess_result is BaseSegmentor.postprocess_result,
)
globals().update({adjusted.__name__: adjusted for adjusted in ADJUSTED.values()})
