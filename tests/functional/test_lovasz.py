"""Lovasz-Softmax: its two paths, and what it leaves unsorted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from mmseg_recall.functional import lovasz_softmax
from tests.losses.batches import Batch, batches
from tests.losses.test_oracle import assume_no_ties
from tests.oracles import lovasz_softmax as oracle


def value_and_gradient(function, logits: Tensor, *args) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = function(logits, *args)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def one_sort(logits: Tensor, target: Tensor) -> Tensor:
    return lovasz_softmax(logits, target, impl='plain')


@settings(max_examples=40, deadline=None)
@given(batch=batches(dtypes=(torch.float64, torch.float32)))
def test_one_sort_equals_the_oracle(batch: Batch) -> None:
    assume_no_ties(batch)
    expected, expected_gradient = oracle.loss(batch.pixels(), batch.num_classes)
    value, gradient = value_and_gradient(one_sort, batch.logits, batch.target)
    relative = 1e-9 if batch.logits.dtype == torch.float64 else 1e-6
    assert abs(value.item() - expected) <= relative
    gradient = batch.flat_logits(gradient)
    assert torch.all(gradient[~batch.valid] == 0)
    assume(expected_gradient)
    want = torch.tensor(expected_gradient, dtype=torch.double)
    assert (gradient[batch.valid] - want).abs().max() <= relative * max(1, want.abs().max())


@pytest.mark.parametrize('scale', [1.0, 12.0], ids=['unsure', 'sure'])
@pytest.mark.parametrize('share', [0.0, 0.3], ids=['all_valid', 'some_ignored'])
def test_long_rows_equal_one_sort(scale: float, share: float) -> None:
    """Rows long enough for a radix sort; sure predictions leave much unsorted."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(4, (2, 150, 150), generator=generator)
    logits = torch.randn(2, 5, 150, 150, generator=generator, dtype=torch.double)
    logits.scatter_add_(1, target.unsqueeze(1), torch.full((2, 1, 150, 150), scale).double())
    target[torch.rand(target.shape, generator=generator) < share] = 255
    value, gradient = value_and_gradient(lovasz_softmax, logits, target)
    expected, expected_gradient = value_and_gradient(one_sort, logits, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    value, gradient = value_and_gradient(lovasz_softmax, logits.float(), target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize('function', [lovasz_softmax, one_sort])
def test_gradients_of_large_images_keep_their_digits(function) -> None:
    """The Jaccard distance moves by a millionth a pixel, which float32 hardly holds as 1 - IoU."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(4, (2, 300, 300), generator=generator)
    logits = torch.randn(2, 5, 300, 300, generator=generator)
    truth = value_and_gradient(lovasz_softmax, logits.double(), target)
    value, gradient = value_and_gradient(function, logits, target)
    assert abs(value - truth[0]) <= 1e-6 * truth[0]
    assert (gradient - truth[1]).abs().mean() <= 1e-6 * truth[1].abs().mean()


@pytest.mark.parametrize('function', [lovasz_softmax, one_sort])
@pytest.mark.parametrize('ignored', [False, True])
def test_nan_propagates(function, ignored: bool) -> None:
    logits, target = torch.zeros(1, 3, 2, 4), torch.zeros(1, 2, 4, dtype=torch.int64)
    target[0, 1] = 1
    logits[0, 2, 0, 0] = float('nan')
    if ignored:
        target[0, 0, 1] = 255
    assert function(logits, target).isnan()


@pytest.mark.parametrize('function', [lovasz_softmax, one_sort])
def test_all_ignored(function) -> None:
    value, gradient = value_and_gradient(function, torch.randn(2, 3, 4), torch.full((2, 4), 255))
    assert value == 0 and torch.all(gradient == 0)


def test_compiles_without_a_graph_break() -> None:
    logits, target = torch.randn(1, 3, 4, 4), torch.arange(16).view(1, 4, 4) % 3
    compiled = torch.compile(lovasz_softmax, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(logits, target), lovasz_softmax(logits, target))
