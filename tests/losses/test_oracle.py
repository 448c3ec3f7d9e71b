"""Every loss equals its float64 oracle, value and gradient, on random batches.

With ``--hypothesis-profile=thorough`` these are 10,000 a loss and implementation.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmseg_recall.losses import ClassWeightedLoss, SegmentationLoss, available_losses
from mmseg_recall.losses.base import RegionLoss
from tests.losses.batches import Batch, batches, hostile_batches
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


def build(name: str, impl: str | None, options: dict[str, Any]) -> SegmentationLoss:
    return LOSSES[name](**options, **(dict(impl=impl) if impl else {}))


def has_ties(batch: Batch) -> bool:
    """Where a loss ranks pixels, its gradient at a tie is any of several."""
    pixels = batch.pixels()
    probabilities = [softmax(z) for z, _ in pixels]
    labels = [y for _, y in pixels]
    keys = [[nll(z, y) for z, y in pixels]]
    for c in set(labels):
        keys.append(
            [1 - p[c] if y == c else p[c] for p, y in zip(probabilities, labels, strict=True)]
        )
    return any(b - a <= 1e-5 for key in keys for a, b in pairwise(sorted(key)))


def assume_no_ties(batch: Batch) -> None:
    assume(not has_ties(batch))


def assert_equals_the_oracle(
    name: str, impl: str | None, options: dict[str, Any], batch: Batch
) -> None:
    oracle = oracle_of(name)
    before = batch.logits.detach().clone(), batch.target.clone()
    loss = build(name, impl, options)
    value = loss(batch.logits, batch.target, ignore_index=batch.ignore_index)
    value.backward()
    pixels = batch.pixels()
    if 'images' in signature(oracle.loss).parameters:
        options = options | dict(images=batch.images())
    expected, expected_gradient = oracle.loss(pixels, batch.num_classes, **options)

    dtype = batch.logits.dtype
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    relative = 1e-9 if dtype == torch.float64 else 1e-6
    roundings = getattr(oracle, 'ROUNDINGS_PER_CLASS', 0) * batch.num_classes
    relative += roundings * torch.finfo(value.dtype).eps
    assert abs(value.item() - expected) <= relative * max(1.0, abs(expected))

    gradient = batch.flat_logits(batch.logits.grad)
    assert torch.all(gradient[~batch.valid] == 0)
    assert gradient.isfinite().all()
    if pixels and not (getattr(oracle, 'RANKS_PIXELS', False) and has_ties(batch)):
        got, want = gradient[batch.valid], torch.tensor(expected_gradient, dtype=torch.double)
        if batch.logits.shape[1] == 1:
            want[:, 0] = 0  # of the class whose logit is 0
        scale = max(want.abs().max().item(), 1 / len(pixels))
        # A float16 or bfloat16 gradient is the float32 one, rounded.
        rounding = torch.finfo(dtype).eps * want.abs() + torch.finfo(dtype).smallest_normal
        assert torch.all((got - want).abs() <= relative * scale + rounding)
    assert torch.equal(batch.logits.detach(), before[0]) and torch.equal(batch.target, before[1])


each_case = pytest.mark.parametrize(('name', 'impl'), CASES)


@each_case
@given(data=st.data())
def test_equals_the_oracle(name: str, impl: str | None, data: st.DataObject) -> None:
    batch = data.draw(st.one_of(batches(), hostile_batches()))
    options = data.draw(oracle_of(name).options(batch.num_classes))
    assert_equals_the_oracle(name, impl, options, batch)


POISONS = {
    'nan': float('nan'),
    'inf': float('inf'),
    '-inf': float('-inf'),
}


@each_case
@settings(max_examples=max(settings.default.max_examples // 4, 50))
@given(data=st.data())
def test_logits_that_are_not_finite(name: str, impl: str | None, data: st.DataObject) -> None:
    """What plain torch makes of them: NaN or inf stay, and nothing else becomes a number."""
    batch = data.draw(hostile_batches())
    assume(batch.target.numel())
    options = data.draw(oracle_of(name).options(batch.num_classes))
    loss = build(name, impl, options)
    clean = loss(batch.logits, batch.target, ignore_index=batch.ignore_index).item()

    poison = data.draw(st.sampled_from(sorted(POISONS)))
    rows = batch.logits.detach().movedim(1, -1)
    at = data.draw(st.tuples(*(st.integers(0, size - 1) for size in rows.shape)))
    rows[at] = POISONS[poison]
    value = build(name, impl, options)(batch.logits, batch.target, ignore_index=batch.ignore_index)
    value.backward()
    target = batch.target.long()[at[:-1]]
    if target == batch.ignore_index:
        assert value.item() == clean
        return
    row = rows[at[:-1]].double()
    torch_nll = F.cross_entropy(F.pad(row, (int(len(row) == 1), 0)), target)
    if torch_nll.isnan():
        assert value.isnan()
    elif torch_nll.isinf() and not issubclass(LOSSES[name], RegionLoss):
        # A weight of 0 times inf is NaN, in F.cross_entropy, too.
        assert not value.isfinite()
    else:
        # A probability of 0, which is a number like others.
        batch.logits.grad = None
        assert_equals_the_oracle(name, impl, options, batch)


@each_case
@settings(max_examples=15)
@given(data=st.data())
def test_gradcheck(name: str, impl: str | None, data: st.DataObject) -> None:
    oracle = oracle_of(name)
    batch = data.draw(batches(dtypes=(torch.float64,), max_pixels=12))
    options = data.draw(oracle.options(batch.num_classes)) | getattr(oracle, 'GRADCHECK', {})
    if getattr(oracle, 'RANKS_PIXELS', False):
        assume_no_ties(batch)
    # A finite difference must not move a pixel's prediction, where the weight jumps.
    two = batch.logits.detach().topk(2, dim=1).values
    assume(two.numel() == 0 or (two.select(1, 0) - two.select(1, 1)).min() > 1e-4)
    loss = build(name, impl, options)
    loss(batch.logits, batch.target)
    loss.eval()  # what it remembers stays as it is

    def of_logits(logits: Tensor) -> Tensor:
        return loss(logits, batch.target)

    assert torch.autograd.gradcheck(of_logits, batch.logits)
