"""LDAM equals its float64 oracle, and its classifier gives cosines."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample

from mmseg_recall.classification.ldam import CosineClsHead, LDAMLoss
from tests.losses.batches import batches
from tests.oracles.common import Pixels, Result, class_counts, weighted_cross_entropy


def oracle(
    pixels: Pixels, counts: list[int], max_margin: float, scale: float, normalization: str
) -> Result:
    """Cross-entropy of s (z - D_y e_y), term by term; a class never seen weighs 0."""
    fourth_roots = [math.sqrt(math.sqrt(n)) for n in counts]
    constant = max_margin * min(r for r in fourth_roots if r > 0)
    shifted = []
    for z, y in pixels:
        margin = constant / fourth_roots[y] if counts[y] else 0.0
        shifted.append(([scale * (v - margin * (c == y)) for c, v in enumerate(z)], y))
    weight = [float(n > 0) for n in counts]
    value, gradient = weighted_cross_entropy(shifted, weight, normalization)
    return value, [[scale * g for g in row] for row in gradient]


@pytest.mark.parametrize('impl', ['plain', 'fused'])
@given(data=st.data())
def test_equals_the_oracle(impl: str, data: st.DataObject) -> None:
    batch = data.draw(batches(dtypes=(torch.float64, torch.float32)))
    counts = data.draw(class_counts(batch.num_classes))
    options = dict(
        max_margin=data.draw(st.floats(0.01, 2.0)),
        scale=data.draw(st.floats(0.1, 40.0)),
        normalization=data.draw(st.sampled_from(['pixels', 'weights'])),
    )
    before = batch.logits.detach().clone()
    loss = LDAMLoss(class_counts=counts, impl=impl, **options)
    value = loss(batch.logits, batch.target, ignore_index=255)
    value.backward()
    pixels = batch.pixels()
    expected, expected_gradient = oracle(pixels, counts, **options)

    dtype = batch.logits.dtype
    # The margin and the scale round the logits, whose size the loss then has as its own.
    size = options['scale'] * (before.abs().max().item() + options['max_margin'])
    tolerance = (1e-9 if dtype == torch.float64 else 1e-6) * max(1.0, size)
    assert value.dtype == dtype
    assert abs(value.item() - expected) <= tolerance
    gradient = batch.flat_logits(batch.logits.grad)
    assert torch.all(gradient[~batch.valid] == 0)
    if pixels:
        want = torch.tensor(expected_gradient, dtype=torch.double)
        scale = max(want.abs().max().item(), options['scale'] / len(pixels))
        assert torch.all((gradient[batch.valid] - want).abs() <= tolerance * scale)
    assert torch.equal(batch.logits.detach(), before)


def test_the_rarest_class_has_the_largest_margin() -> None:
    assert LDAMLoss(class_counts=[16, 0, 1]).margin.tolist() == [0.25, 0.5, 0.5]
    assert LDAMLoss(class_counts=[7, 7], max_margin=0.3).margin.tolist() == [0.3, 0.3]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(class_counts=[1, 2], max_margin=0.0), 'max_margin must be positive'),
        (dict(class_counts=[1, 2], scale=float('nan')), 'scale must be positive'),
        (dict(), 'LDAMLoss needs class_counts'),
        (dict(class_counts=[0, 0]), 'all zero'),
        (dict(class_counts=[1, 2], num_classes=3), '2 classes, num_classes is 3'),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LDAMLoss(**options)


def test_counts_of_other_classes_and_unknown_labels_are_refused() -> None:
    with pytest.raises(ValueError, match='2 classes, the logits have 3'):
        LDAMLoss(class_counts=[1, 2])(torch.zeros(4, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r'outside \[0, 2\).*: 255'):
        LDAMLoss(class_counts=[1, 2])(torch.zeros(1, 2), torch.tensor([255]))


def test_cosine_head() -> None:
    torch.manual_seed(0)
    loss = dict(type='LDAMLoss', class_counts=[9, 3, 1])
    head = CosineClsHead(num_classes=3, in_channels=32, loss=loss)
    head.init_weights()
    assert head.fc.weight.norm(dim=1).mean().item() == pytest.approx(1.0, rel=0.2)
    assert [name for name, _ in head.named_parameters()] == ['fc.weight']
    features = torch.randn(5, 32)
    expected = torch.cosine_similarity(features[:, None], head.fc.weight[None], dim=-1)
    torch.testing.assert_close(head((features,)), expected)

    target = torch.tensor([0, 1, 2, 0, 1])
    value = head.loss((features,), [DataSample().set_gt_label(y) for y in target])['loss']
    assert torch.equal(value, LDAMLoss(class_counts=[9, 3, 1])(head((features,)), target))
    assert isinstance(head, LinearClsHead)
