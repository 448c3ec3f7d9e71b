"""Every loss equals its float64 oracle, value and gradient, on random batches."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmseg_recall.losses import ClassWeightedLoss, available_losses
from tests.losses.batches import Batch, batches
from tests.oracles.common import nll, softmax

LOSSES = available_losses()
CASES = [
    (name, impl)
    for name, cls in LOSSES.items()
    for impl in (('plain', 'fused') if issubclass(cls, ClassWeightedLoss) else (None,))
]


def oracle_of(name: str):
    """The module of tests/oracles named after the loss; a loss without one fails here."""
    return import_module(f'tests.oracles.{LOSSES[name].default_name.removeprefix("loss_")}')


def assume_no_ties(batch: Batch) -> None:
    """Where a loss ranks pixels, its gradient at a tie is any of several."""
    pixels = batch.pixels()
    keys = [[nll(z, y) for z, y in pixels]]
    for c in range(batch.num_classes):
        p = [softmax(z)[c] for z, _ in pixels]
        keys.append([1 - v if y == c else v for v, (_, y) in zip(p, pixels, strict=True)])
    for key in keys:
        ordered = sorted(key)
        assume(all(b - a > 1e-5 for a, b in pairwise(ordered)))


@pytest.mark.parametrize(('name', 'impl'), CASES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_equals_the_oracle(name: str, impl: str | None, data: st.DataObject) -> None:
    oracle = oracle_of(name)
    batch = data.draw(batches())
    options = data.draw(oracle.options(batch.num_classes))
    if getattr(oracle, 'RANKS_PIXELS', False):
        assume_no_ties(batch)
    before = batch.logits.detach().clone(), batch.target.clone()

    loss = LOSSES[name](**options, **(dict(impl=impl) if impl else {}))
    value = loss(batch.logits, batch.target, ignore_index=batch.ignore_index)
    value.backward()
    pixels = batch.pixels()
    expected, expected_gradient = oracle.loss(pixels, batch.num_classes, **options)

    dtype = batch.logits.dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    relative = 1e-9 if dtype == torch.float64 else 1e-6
    assert abs(value.item() - expected) <= relative * max(1.0, abs(expected))

    gradient = batch.flat_logits(batch.logits.grad)
    assert torch.all(gradient[~batch.valid] == 0)
    if pixels:
        got, want = gradient[batch.valid], torch.tensor(expected_gradient, dtype=torch.double)
        scale = max(want.abs().max().item(), 1 / len(pixels))
        # A float16 or bfloat16 gradient is the float32 one, rounded.
        rounding = torch.finfo(dtype).eps * want.abs() + torch.finfo(dtype).smallest_normal
        assert torch.all((got - want).abs() <= relative * scale + rounding)
    assert torch.equal(batch.logits.detach(), before[0]) and torch.equal(batch.target, before[1])


@pytest.mark.parametrize(('name', 'impl'), CASES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_gradcheck(name: str, impl: str | None, data: st.DataObject) -> None:
    oracle = oracle_of(name)
    batch = data.draw(batches(dtypes=(torch.float64,), max_pixels=12))
    options = data.draw(oracle.options(batch.num_classes))
    if getattr(oracle, 'RANKS_PIXELS', False):
        assume_no_ties(batch)
    # A finite difference must not move a pixel's prediction, where the weight jumps.
    two = batch.logits.detach().topk(2, dim=1).values
    assume(two.numel() == 0 or (two.select(1, 0) - two.select(1, 1)).min() > 1e-4)
    loss = LOSSES[name](**options, **(dict(impl=impl) if impl else {}))
    assert torch.autograd.gradcheck(lambda x: loss(x, batch.target), batch.logits)
