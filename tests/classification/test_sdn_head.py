"""Which loss reaches what, what inference costs, and the checkpoint without g."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch.utils.flop_counter import FlopCounterMode

from mmseg_recall.classification.sdn_head import SDNHead, drop_feature_head
from tests.tools.run import ROOT

COUNTS = [40, 10, 5, 1]
BALANCED = dict(type='ClassBalancedLoss', class_counts=COUNTS)
LOSSES = [dict(type='RecallLoss', momentum=0.9), dict(type='CrossEntropyLoss')]


def classifier(head: dict, seed: int = 0) -> ImageClassifier:
    torch.manual_seed(seed)
    return ImageClassifier(
        backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(num_classes=4, in_channels=64, **head),
    )


def sdn(**options) -> dict:
    return dict(type='SDNHead', loss_classifier=BALANCED, **options)


def batch() -> tuple[torch.Tensor, list[DataSample]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    return images, [DataSample().set_gt_label(i % 4) for i in range(8)]


@pytest.mark.parametrize('loss', LOSSES, ids=['SDN-recall', 'SDN-CE'])
def test_only_g_trains_the_backbone(loss: dict) -> None:
    model = classifier(sdn(loss=loss))
    backbone = list(model.backbone.parameters())
    losses = model.loss(*batch())

    of_h = torch.autograd.grad(
        losses['loss_classifier'], backbone, allow_unused=True, retain_graph=True
    )
    # No path leads there, so that the gradient is zero whatever the numbers are.
    assert all(gradient is None for gradient in of_h)
    of_g = torch.autograd.grad(losses['loss_feature'], backbone, retain_graph=True)
    assert all(gradient.abs().sum() > 0 for gradient in of_g)

    model.parse_losses(losses)[0].backward()
    for parameter, gradient in zip(backbone, of_g, strict=True):
        assert torch.equal(parameter.grad, gradient)
    for head in (model.head, model.head.feature_head):
        assert head.fc.weight.grad.abs().sum() > 0


def test_each_loss_is_that_of_a_linear_head() -> None:
    torch.manual_seed(0)
    head = SDNHead(4, 6, loss_classifier=BALANCED, cal_acc=True, topk=(1, 2))
    _, data_samples = batch()
    feats = (torch.randn(8, 6),)
    losses = head.loss(feats, data_samples)
    assert set(losses) == {
        'loss_feature', 'loss_classifier', 'accuracy_top-1', 'accuracy_top-2',
    }  # fmt: skip
    for key, loss, fc in (
        ('loss_feature', dict(type='RecallLoss'), head.feature_head.fc),
        ('loss_classifier', BALANCED, head.fc),
    ):
        alone = LinearClsHead(4, 6, loss=loss, cal_acc=True, topk=(1, 2))
        alone.fc = fc
        of_alone = alone.loss(feats, data_samples)
        assert torch.equal(losses[key], of_alone['loss'])
    assert losses['accuracy_top-1'] == of_alone['accuracy_top-1']


def test_both_classifiers_start_as_init_cfg_says() -> None:
    head = SDNHead(
        50, 40, loss_classifier=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='Normal', layer='Linear', std=2.0),
    )  # fmt: skip
    head.init_weights()
    for fc in (head.fc, head.feature_head.fc):
        assert fc.weight.std().item() == pytest.approx(2.0, rel=0.05)
    assert not torch.equal(head.fc.weight, head.feature_head.fc.weight)


def test_inference_uses_h_alone_and_costs_what_a_linear_head_costs() -> None:
    model = classifier(sdn()).eval()
    images, _ = batch()
    before = model(images)
    with torch.no_grad():
        for parameter in model.head.feature_head.parameters():
            parameter.fill_(float('nan'))
    with FlopCounterMode(display=False) as ours:
        assert torch.equal(model(images), before)
    with FlopCounterMode(display=False) as plain:
        classifier(dict(type='LinearClsHead')).eval()(images)
    assert ours.get_total_flops() == plain.get_total_flops() > 0


def test_without_g_it_is_the_state_of_a_linear_head() -> None:
    model = classifier(sdn(loss=LOSSES[0])).eval()
    model.train().loss(*batch())  # so that the running recall is in the state
    state_dict = model.eval().state_dict()
    assert 'head.feature_head.loss_module.running_recall' in state_dict
    plain = classifier(dict(type='LinearClsHead'), seed=1).eval()
    plain.load_state_dict(drop_feature_head(state_dict), strict=True)
    images, _ = batch()
    assert torch.equal(plain(images), model(images))
    with pytest.raises(ValueError, match='SDNHead'):
        drop_feature_head(plain.state_dict())


def test_export_tool(tmp_path, monkeypatch) -> None:
    state_dict = SDNHead(4, 6, loss_classifier=BALANCED).state_dict(prefix='head.')
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd')), epoch=3)
    torch.save(dict(state_dict=state_dict, meta=meta, optimizer={}), tmp_path / 'epoch_3.pth')
    command = ['export_sdn.py', tmp_path / 'epoch_3.pth', '--out', tmp_path / 'plain.pth']
    monkeypatch.setattr(sys, 'argv', [str(word) for word in command])
    runpy.run_path(str(ROOT / 'tools/classification/export_sdn.py'), run_name='__main__')
    exported = torch.load(tmp_path / 'plain.pth', weights_only=True)
    assert exported['meta'] == meta
    assert exported.keys() == {'state_dict', 'meta'}
    assert list(exported['state_dict']) == ['head.fc.weight', 'head.fc.bias']
