"""What holds for every loss: the convention of SegmentationLoss, one test a promise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from mmseg_recall.losses import SegmentationLoss, available_losses
from tests.losses.batches import Batch, batches

LOSSES = available_losses()


def build(name: str, num_classes: int, **options: Any) -> SegmentationLoss:
    """The loss with its defaults, and counts where it needs them."""
    cls = LOSSES[name]
    try:
        return cls(**options)
    except ValueError:
        return cls(class_counts=list(range(1, num_classes + 1)), **options)


every_loss = pytest.mark.parametrize('name', LOSSES)


def random_batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 6, 7, generator=generator).to(dtype)
    target = torch.randint(0, 4, (2, 6, 7), generator=generator)
    target[:, 0] = 255
    return Batch(logits.requires_grad_(), target)


@every_loss
@settings(max_examples=10, deadline=None)
@given(batch=batches())
def test_an_ignored_batch_gives_zero_and_zero_gradients(name: str, batch: Batch) -> None:
    loss = build(name, batch.num_classes)(batch.logits, torch.full_like(batch.target, 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(batch.logits.grad, torch.zeros_like(batch.logits))


@every_loss
def test_an_empty_batch_gives_zero(name: str) -> None:
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = build(name, 3)(logits, torch.zeros(0, 4, 4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0


@every_loss
def test_nan_logits_give_nan(name: str) -> None:
    batch = random_batch()
    with torch.no_grad():
        batch.logits[1, 2, 3, 3] = float('nan')
    assert build(name, 5)(batch.logits, batch.target).isnan()


@every_loss
@pytest.mark.parametrize('ids', [[5], [-1], [7, 300, -100]])
def test_unknown_labels_are_named(name: str, ids: list[int]) -> None:
    batch = random_batch()
    batch.target[0, 1, : len(ids)] = torch.tensor(ids)
    with pytest.raises(ValueError, match=r'outside \[0, 5\)') as error:
        build(name, 5)(batch.logits, batch.target)
    assert all(str(i) in str(error.value) for i in ids)


@every_loss
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    batch = random_batch()
    with pytest.raises(ValueError, match=r'\(2, 5, 6, 7\).*\(2, 6, 6\)'):
        build(name, 5)(batch.logits, batch.target[..., :6])
    with pytest.raises(ValueError, match='integer'):
        build(name, 5)(batch.logits, batch.target.float())


@every_loss
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32])
def test_small_integer_targets_are_taken(name: str, dtype: torch.dtype) -> None:
    batch = random_batch()
    loss = build(name, 5).eval()  # in which none remembers a batch
    assert torch.equal(loss(batch.logits, batch.target.to(dtype)), loss(batch.logits, batch.target))


@every_loss
def test_calls_of_decode_heads(name: str) -> None:
    batch = random_batch()
    loss = build(name, 5).eval()
    as_decode_head = loss(batch.logits, batch.target, weight=None, ignore_index=255)
    as_pid_head = loss(batch.logits, batch.target)
    assert torch.equal(as_decode_head, as_pid_head)
    assert loss.loss_name == LOSSES[name].default_name
    assert loss.loss_name.startswith('loss_')


@every_loss
def test_loss_weight_and_ignore_index(name: str) -> None:
    batch = random_batch()
    loss = build(name, 5).eval()
    full = loss(batch.logits, batch.target)
    loss.loss_weight = 0.4
    torch.testing.assert_close(loss(batch.logits, batch.target), 0.4 * full)
    loss.loss_weight, loss.ignore_index = 1.0, 77
    moved = torch.where(batch.target == 255, 77, batch.target)
    assert torch.equal(loss(batch.logits, moved), full)
    # An ignored id may lie inside [0, C): pixels of class 3 then take no part.
    inside = torch.where(batch.target == 3, 255, batch.target)
    outside = torch.where(batch.target == 255, 3, batch.target)
    same = copy.deepcopy(loss)  # with what the loss remembers of the batches before
    assert torch.equal(
        loss(batch.logits, inside, ignore_index=255), same(batch.logits, outside, ignore_index=3)
    )


@every_loss
def test_only_the_type_changes(name: str) -> None:
    cls = LOSSES[name]
    counts = (
        dict(class_counts=[1, 2]) if 'class_counts' in str(cls.__init__.__annotations__) else {}
    )
    assert cls(use_sigmoid=False, loss_weight=0.4, **counts).loss_weight == 0.4
    with pytest.raises(ValueError, match='use_sigmoid=True and logits of 3 channels'):
        cls(use_sigmoid=True, **counts)(torch.zeros(1, 3, 4), torch.zeros(1, 4).long())
    with pytest.raises(ValueError, match='loss_weight'):
        cls(loss_weight=-1.0, **counts)


@every_loss
def test_is_independent_of_layout_and_pixel_order(name: str) -> None:
    batch = random_batch(dtype=torch.float64)
    loss = build(name, 5).eval()
    value = loss(batch.logits, batch.target)
    channels_last = batch.logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(channels_last, batch.target), value)
    flipped = loss(batch.logits.flip(0, -1), batch.target.flip(0, -1))
    torch.testing.assert_close(flipped, value)


@every_loss
def test_deterministic_mode_and_autocast(name: str) -> None:
    batch = random_batch(dtype=torch.bfloat16)
    loss = build(name, 5).eval()
    expected = loss(batch.logits.float(), batch.target)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            value = loss(batch.logits, batch.target)
        value.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


@every_loss
def test_compiles_without_a_graph_break(name: str) -> None:
    batch = random_batch()
    loss = build(name, 5)
    expected = loss(batch.logits, batch.target)
    (gradient,) = torch.autograd.grad(expected, batch.logits)
    torch._dynamo.reset()
    # 'aot_eager' traces forward and backward like the default backend, without its C++ build.
    compiled = torch.compile(build(name, 5), fullgraph=True, backend='aot_eager')
    value = compiled(batch.logits, batch.target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, batch.logits)[0], gradient)
