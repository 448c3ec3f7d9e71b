"""Classifiers from a trained one: their formulas, what they load, and what they train."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import nn

from mmseg_recall.classification.post_hoc import LWSHead, TauNormalizedHead

NUM_CLASSES, CHANNELS = 5, 64


def trained() -> dict[str, torch.Tensor]:
    """The state of a LinearClsHead whose weights differ in norm, and have a bias."""
    torch.manual_seed(0)
    head = LinearClsHead(NUM_CLASSES, CHANNELS)
    with torch.no_grad():
        head.fc.weight.copy_(torch.randn(NUM_CLASSES, CHANNELS) * torch.logspace(-1, 1, 5)[:, None])
        head.fc.bias.copy_(torch.randn(NUM_CLASSES))
    return head.state_dict()


@pytest.mark.parametrize('tau', [0.0, 0.7, 1.0])
def test_tau_normalisation(tau: float) -> None:
    state, x = trained(), torch.randn(6, CHANNELS)
    head = TauNormalizedHead(NUM_CLASSES, CHANNELS, tau=tau)
    head.load_state_dict(state, strict=True)
    for c, w in enumerate(state['fc.weight'].double()):
        expected = x.double() @ w / w.square().sum().sqrt() ** tau
        torch.testing.assert_close(head((x,))[:, c].double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(head.fc.weight, state['fc.weight'])


def test_tau_normalisation_of_a_class_without_weights() -> None:
    head = TauNormalizedHead(2, CHANNELS, tau=1.0)
    nn.init.zeros_(head.fc.weight[1])
    logits = head((torch.randn(3, CHANNELS),))
    assert torch.all(logits[:, 1] == 0) and logits.isfinite().all()


@pytest.mark.parametrize('tau', [-0.1, float('inf'), float('nan')])
def test_bad_tau_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match='tau'):
        TauNormalizedHead(2, 3, tau=tau)


def test_learnable_weight_scaling() -> None:
    state, x = trained(), torch.randn(6, CHANNELS)
    head = LWSHead(NUM_CLASSES, CHANNELS)
    missing = head.load_state_dict(state, strict=False)
    assert missing.missing_keys == ['scale'] and not missing.unexpected_keys
    linear = LinearClsHead(NUM_CLASSES, CHANNELS)
    linear.load_state_dict(state)
    assert torch.equal(head((x,)), linear((x,)))  # it starts as the trained classifier
    with torch.no_grad():
        head.scale.copy_(torch.tensor([2.0, 0.5, 1.0, -1.0, 3.0]))
    for c in range(NUM_CLASSES):
        expected = head.scale[c] * (x @ state['fc.weight'][c] + state['fc.bias'][c])
        torch.testing.assert_close(head((x,))[:, c], expected)


def test_only_the_scales_are_trained() -> None:
    torch.manual_seed(0)
    model = ImageClassifier(
        backbone=dict(
            type='ResNet', depth=18, base_channels=8, stem_channels=8,
            frozen_stages=4, norm_eval=True,
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LWSHead', num_classes=NUM_CLASSES, in_channels=CHANNELS,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )  # fmt: skip
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    images = torch.randn(10, 3, 32, 32)
    data_samples = [DataSample().set_gt_label(i % NUM_CLASSES) for i in range(10)]
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model.loss(images, data_samples)['loss'].backward()
        optimizer.step()
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ['head.scale']


def test_a_backbone_that_cannot_be_frozen_gets_no_gradient() -> None:
    backbone = nn.Linear(4, CHANNELS)
    head = LWSHead(NUM_CLASSES, CHANNELS, loss=dict(type='RecallLoss'))
    target = [DataSample().set_gt_label(i % NUM_CLASSES) for i in range(10)]
    head.loss((backbone(torch.randn(10, 4)),), target)['loss'].backward()
    assert backbone.weight.grad is None and head.fc.weight.grad is None
    assert head.scale.grad.abs().sum() > 0
