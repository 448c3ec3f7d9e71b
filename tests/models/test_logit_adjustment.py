"""Post-hoc logit adjustment: what the model predicts is the direct formula, in every inference."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_recall.models import LogitAdjusted, adjust_logits

COUNTS = [1000, 50, 7]
BASE = Path(__file__).parents[2] / 'configs/_base_/post_hoc/logit_adjustment.py'
HEAD = dict(
    type='FCNHead', in_channels=16, in_index=3, channels=4, num_convs=1, num_classes=3,
    loss_decode=dict(type='CrossEntropyLoss'),
)  # fmt: skip
OCR_HEAD = dict(
    type='OCRHead', in_channels=16, in_index=3, channels=4, ocr_channels=4, num_classes=3,
    loss_decode=dict(type='CrossEntropyLoss'),
)  # fmt: skip
MODEL = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(48, 64)),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=2, stem_channels=2, init_cfg=None),
    decode_head=HEAD,
    test_cfg=dict(mode='whole'),
)
MODES = {
    'whole': dict(test_cfg=dict(mode='whole')),
    'slide': dict(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(24, 24))),
    'cascade': dict(
        type='CascadeEncoderDecoder',
        num_stages=2,
        decode_head=[HEAD, OCR_HEAD],
    ),
}


@pytest.fixture(autouse=True, scope='module')
def mmseg_scope() -> None:
    init_default_scope('mmseg')


def build(model: dict[str, Any], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = MODELS.build(Config(dict(model=model)).model).eval()
    for name, parameter in model.named_parameters():
        if 'conv_seg.bias' in name:
            parameter.data[0] = 3  # predicts the most frequent class
    return model


def adjusted(model: dict[str, Any], **options: Any) -> dict[str, Any]:
    cfg = Config(dict(model=model, logit_adjustment=options, class_counts=COUNTS))
    return adjust_logits(cfg).model.to_dict()


@torch.no_grad()
def predict(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits and classes of an image, at the size that it had before it was resized."""
    image = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    meta = dict(img_shape=(48, 64), ori_shape=(72, 96), pad_shape=(48, 64))
    (sample,) = model.predict(image, [SegDataSample(metainfo=meta)])
    return sample.seg_logits.data, sample.pred_sem_seg.data


@pytest.mark.parametrize('mode', MODES)
def test_equals_the_formula(mode: str) -> None:
    model = dict(MODEL, **MODES[mode])
    logits, classes = predict(build(model))
    got, predicted = predict(build(adjusted(model, tau=1.5)))
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    want = logits.double() - 1.5 * prior.log().view(3, 1, 1)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(predicted, got.argmax(0, keepdim=True))
    assert not torch.equal(predicted, classes)  # so that there is something to see


@pytest.mark.parametrize('mode', MODES)
def test_tau_of_zero_changes_no_bit(mode: str) -> None:
    model = dict(MODEL, **MODES[mode])
    pairs = zip(predict(build(adjusted(model, tau=0))), predict(build(model)), strict=True)
    for got, want in pairs:
        assert torch.equal(got, want)


def test_takes_the_checkpoint_of_the_segmentor_and_is_exported() -> None:
    stock, model = build(MODEL), build(adjusted(MODEL, tau=1.0), seed=2)
    assert isinstance(model, LogitAdjusted)
    model.load_state_dict(stock.state_dict())
    image = torch.randn(1, 3, 48, 64)
    want = stock(image, mode='tensor') - model.adjustment
    assert torch.equal(model(image, mode='tensor'), want)
    exported = torch.jit.trace_module(model, {'_forward': image})
    torch.testing.assert_close(exported._forward(image), want)
    assert type(pickle.loads(pickle.dumps(model))) is type(model)


def test_under_test_time_augmentation() -> None:
    tta = adjusted(dict(type='SegTTAModel', module=MODEL), tau=1.0)
    assert tta['type'] == 'SegTTAModel'
    assert tta['module']['type'] == 'LogitAdjustedEncoderDecoder'


def test_the_runner_turns_it_on_and_options_of_the_command_line_change_it(tmp_path: Path) -> None:
    cfg = Config(
        dict(
            model=MODEL,
            imbalance_loss=dict(type='RecallLoss'),
            class_counts=COUNTS,
            default_scope='mmseg',
            work_dir=str(tmp_path),
            experiment_name=tmp_path.name,
            **Config.fromfile(BASE),
        )
    )
    cfg.merge_from_dict({'logit_adjustment.tau': 0.5})
    runner = Runner.from_cfg(cfg)
    want = -0.5 * (torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)).log().float()
    torch.testing.assert_close(-runner.model.adjustment.flatten(), want)
    runner.cfg.merge_from_dict({'logit_adjustment.tau': 0.25})  # of the config that it dumps
    assert adjust_logits(runner.cfg).model.tau == 0.25


def test_a_scope_stays() -> None:
    model = adjusted(dict(MODEL, type='mmseg.EncoderDecoder'), tau=1.0)
    assert model['type'] == 'mmseg.LogitAdjustedEncoderDecoder'
    assert adjusted(model, tau=1.0) == model
    assert isinstance(build(model), LogitAdjusted)


@pytest.mark.parametrize(
    ('model', 'options', 'message'),
    [
        ({}, dict(tau=-1.0), 'tau'),
        ({}, dict(class_counts=[1, 2]), '2 classes, the decode head has 3 outputs'),
        ({}, dict(class_counts=[1, 0, 2]), '0 for the classes 1'),
        ({}, dict(class_counts=None), r'class_statistics\.py CONFIG'),
        (dict(type='DepthEstimator'), {}, 'DepthEstimator cannot .* CascadeEncoderDecoder, Enc'),
    ],
)
def test_errors(model: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(adjusted(dict(MODEL, **model), **options))


def test_of_one_channel_the_threshold_is_named() -> None:
    head = {**MODEL['decode_head'], 'num_classes': 2, 'out_channels': 1, 'threshold': 0.4}
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match=r'decode_head\.threshold=0\.1 \(now 0\.4\)'):
        build(adjusted({**MODEL, 'decode_head': head}, tau=1.0, class_counts=[9, 1]))
