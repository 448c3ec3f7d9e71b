"""Heads with a fused tail give what the stock heads give: losses, accuracy, gradients, state."""

from __future__ import annotations

import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_recall.functional import lovasz, resized_class_nll_sums
from mmseg_recall.functional.lovasz import resized_class_nll_sums_and_lovasz
from mmseg_recall.losses import RecallLoss
from mmseg_recall.models import FusedTail, fuse_tails, fused_head
from tests.functional.interpreter import use_gpu_kernels

CE = dict(type='CrossEntropyLoss', loss_weight=0.7, avg_non_ignore=True)
CE_STOCK = dict(type='CrossEntropyLoss', loss_name='loss_ce_all')
RECALL = dict(type='RecallLoss', loss_weight=2.0)
FREQUENCY = dict(type='InverseFrequencyLoss', class_counts=[5, 1, 2, 7, 3, 1])
LOVASZ = dict(type='LovaszSoftmaxLoss')
NORM = dict(type='BN')
HEADS = {
    'ASPPHead': dict(in_channels=8, dilations=(1, 2), channels=4),
    'FCNHead': dict(in_channels=8, channels=4, num_convs=1),
    'UPerHead': dict(in_channels=[8, 8], in_index=[0, 1], channels=4, pool_scales=(1, 2)),
    'SegformerHead': dict(in_channels=[8, 8], in_index=[0, 1], channels=4),
}


def build(name: str, loss: dict | list, **options) -> nn.Module:
    head = MODELS.build(
        dict(
            type=name,
            num_classes=2 if 'out_channels' in options else 6,
            norm_cfg=NORM,
            dropout_ratio=0,
            loss_decode=loss,
            **HEADS[name.removeprefix('Fused')],
            **options,
        )
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return head


def batch(size: tuple[int, int], ignored: float = 0.2) -> tuple[list[Tensor], list[SegDataSample]]:
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(2, 8, s, s + 1, generator=generator) for s in (9, 5)]
    samples = []
    for _ in range(2):
        label = torch.randint(5, (1, *size), generator=generator)
        label[torch.rand(label.shape, generator=generator) < ignored] = 255
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label)))
    return features, samples


def losses_and_gradients(head: nn.Module, dtype: torch.dtype, size=(50, 61), **kwargs):
    features, samples = batch(size, **kwargs)
    losses = head.to(dtype).loss(tuple(f.to(dtype) for f in features), samples, train_cfg=None)
    sum(v for k, v in losses.items() if k.startswith('loss')).backward()
    return losses, {k: p.grad for k, p in head.named_parameters() if p.grad is not None}


def assert_alike(name: str, loss: dict | list, **options) -> None:
    batch_options = {k: options.pop(k) for k in ('size', 'ignored') if k in options}
    for dtype in (torch.float32, torch.float64):
        stock, tail = build(name, loss, **options), build(f'Fused{name}', loss, **options)
        assert stock.state_dict().keys() == tail.state_dict().keys()
        expected, expected_gradients = losses_and_gradients(stock, dtype, **batch_options)
        losses, gradients = losses_and_gradients(tail, dtype, **batch_options)
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            assert losses[key].shape == value.shape
            torch.testing.assert_close(losses[key], value, rtol=1e-5, atol=1e-7)
        assert gradients.keys() == expected_gradients.keys()
        if dtype == torch.float32:
            # In front of a normalisation a gradient is the small rest of large terms, which only
            # float64 can compare.
            gradients = {k: v for k, v in gradients.items() if k.startswith('conv_seg')}
        relative = 1e-5 if dtype == torch.float32 else 1e-9
        for key, got in gradients.items():
            want = expected_gradients[key]
            scale = want.abs().max().item()
            torch.testing.assert_close(got, want, rtol=0, atol=relative * scale + 1e-14)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls of the fused tail."""
    calls = []

    def counted(function):
        def resized(*args, **kwargs):
            calls.append(1)
            return function(*args, **kwargs)

        return resized

    for function in (resized_class_nll_sums, resized_class_nll_sums_and_lovasz):
        monkeypatch.setattr(fused_head, function.__name__, counted(function))
    return calls


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('name', HEADS)
def test_equals_the_stock_head(name: str, align_corners: bool, tiled: list[int]) -> None:
    assert_alike(name, RECALL, align_corners=align_corners)
    assert len(tiled) == 2  # in float32 and in float64


@pytest.mark.parametrize(
    'loss',
    [
        *(CE, CE_STOCK, [RECALL, FREQUENCY, CE, CE_STOCK], [RECALL, RECALL]),
        *(LOVASZ, [FREQUENCY, LOVASZ], [dict(LOVASZ, loss_weight=0.3), CE]),
    ],
    ids=str,
)
def test_losses_of_the_family(loss: dict | list, tiled: list[int]) -> None:
    assert_alike('FCNHead', loss)
    assert len(tiled) == 2  # in float32 and in float64


def test_counted_lovasz(tiled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lovasz, 'FEW', 0)
    stock, tail = (build(name, [FREQUENCY, LOVASZ]) for name in ('FCNHead', 'FusedFCNHead'))
    want, want_gradients = losses_and_gradients(stock, torch.float32)
    got, gradients = losses_and_gradients(tail, torch.float32)
    assert len(tiled) == 1 and got.keys() == want.keys()
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=1e-4, atol=0)
    of_weight = want_gradients['conv_seg.weight']
    difference = gradients['conv_seg.weight'] - of_weight
    assert difference.norm() <= 1e-3 * of_weight.norm()


@pytest.mark.slow
def test_by_the_kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpu_kernels(monkeypatch, fused_head)
    assert_alike('FCNHead', [CE, RECALL, FREQUENCY], size=(20, 22))


def test_nothing_to_learn_from(tiled: list[int]) -> None:
    assert_alike('FCNHead', [RECALL, CE], ignored=1.0)
    assert len(tiled) == 2  # in float32 and in float64


def test_same_size_as_the_labels(tiled: list[int]) -> None:
    assert_alike('FCNHead', RECALL, size=(9, 10))
    assert len(tiled) == 2  # in float32 and in float64


@pytest.mark.parametrize(
    'options',
    [
        dict(loss=dict(LOVASZ, exact=True)),
        dict(loss=[LOVASZ, RECALL, LOVASZ]),
        dict(loss=dict(type='LogitAdjustedLoss', class_counts=[5, 1, 2, 7, 3, 1])),
        dict(loss=dict(RECALL, impl='plain')),
        dict(loss=[CE, dict(type='DiceLoss', loss_name='loss_dice')]),
        dict(loss=CE, sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=50)),
    ],
    ids=['sorted', 'lovasz_twice', 'logit_adjusted', 'plain', 'dice_too', 'sampler'],
)
def test_others_take_the_stock_path(options: dict, tiled: list[int]) -> None:
    loss = options.pop('loss')
    assert_alike('FCNHead', loss, **options)
    assert not tiled


@pytest.mark.parametrize('loss', [RECALL, dict(RECALL, use_sigmoid=True, momentum=0.5), LOVASZ])
@pytest.mark.parametrize('size', [(50, 61), (9, 10)])
def test_one_channel(loss: dict, size: tuple[int, int]) -> None:
    """What the stock head gives, but for acc_seg, which that counts as if all were class 0."""
    binary = dict(out_channels=1, threshold=0.5)
    heads = [build(name, loss, **binary) for name in ('FCNHead', 'FusedFCNHead')]
    values, gradients, features = [], [], batch(size)[0]
    labels = [torch.randint(2, (1, *size)) for _ in range(2)]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    for head in heads:
        losses = head.train().loss(features, samples, train_cfg=None)
        (name,) = (key for key in losses if key.startswith('loss'))
        losses[name].backward()
        values.append(losses)
        gradients.append(head.conv_seg.weight.grad)
    torch.testing.assert_close(values[1][name], values[0][name])
    torch.testing.assert_close(gradients[1], gradients[0])
    with torch.no_grad():
        logits = nn.functional.interpolate(heads[1](features), size, mode='bilinear')
    hits = ((logits > 0) == torch.stack(labels)).float().mean()
    torch.testing.assert_close(values[1]['acc_seg'].squeeze(), 100 * hits)


def test_fuse_tails() -> None:
    heads = [dict(type='FCNHead', num_classes=3), dict(type='PointHead'), dict(type='FCNHead')]
    cfg = Config(dict(model=dict(decode_head=dict(type='ASPPHead'), auxiliary_head=heads)))
    once = fuse_tails(cfg)
    assert once.model.decode_head.type == 'FusedASPPHead'
    assert [h.type for h in once.model.auxiliary_head] == [
        'FusedFCNHead',
        'PointHead',
        'FusedFCNHead',
    ]
    assert fuse_tails(once).to_dict() == once.to_dict()
    assert cfg.model.decode_head.type == 'ASPPHead'


def test_heads_with_a_loss_of_their_own_are_not_fused() -> None:
    assert 'FusedPointHead' not in MODELS and 'FusedEncHead' not in MODELS
    assert issubclass(MODELS.get('FusedUPerHead'), (FusedTail, MODELS.get('UPerHead')))


def test_pickles() -> None:
    head = build('FusedFCNHead', RECALL)
    copy = pickle.loads(pickle.dumps(head))
    assert type(copy) is type(head)


class TenTimes(RecallLoss):
    """A loss of a user's own."""

    def forward(self, *args, **kwargs) -> Tensor:
        return 10 * super().forward(*args, **kwargs)


def test_what_a_loss_does_around_its_sums_is_done() -> None:
    MODELS.register_module(module=TenTimes, force=True)
    features, samples = batch((16, 20))
    values = [
        build(name, dict(type='TenTimes')).loss(features, samples, {})['loss_recall']
        for name in ('FCNHead', 'FusedFCNHead')
    ]
    torch.testing.assert_close(*values)
    head = build('FusedFCNHead', RECALL)
    head.loss_decode.register_forward_hook(lambda module, args, value: value * 0 + 7)
    assert head.loss(features, samples, {})['loss_recall'] == 7


def test_a_type_with_the_scope_of_mmseg_is_fused_in_that_scope() -> None:
    cfg = Config(dict(model=dict(decode_head=dict(type='mmseg.FCNHead'))))
    once = fuse_tails(cfg)
    # Without it a config with another default_scope would not find the head.
    assert once.model.decode_head.type == 'mmseg.FusedFCNHead'
    assert MODELS.get(once.model.decode_head.type) is MODELS.get('FusedFCNHead')
    assert fuse_tails(once).to_dict() == once.to_dict()
