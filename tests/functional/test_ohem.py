"""The mean of the hardest pixels: which they are, and what ties share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmseg_recall.functional import hardest_mean

DTYPES = [torch.float32, torch.float64]


def value_and_gradient(losses: Tensor, valid: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    losses = losses.clone().requires_grad_()
    value = hardest_mean(losses, valid, ratio)
    return value.detach(), torch.autograd.grad(value, losses)[0]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('scale', [1e-30, 1.0, 1e30])
@pytest.mark.parametrize('ratio', [0.001, 0.3, 0.7, 1.0])
def test_is_the_mean_of_the_sorted_ones(dtype: torch.dtype, scale: float, ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    # Of both signs: a weight per pixel may be negative.
    losses = scale * torch.randn(7, 100, generator=generator, dtype=dtype).exp().sub(0.5)
    valid = torch.rand(7, 100, generator=generator) < 0.8
    kept = -(-int(valid.sum()) * ratio // 1)
    hardest = losses[valid].sort(descending=True).values[: int(kept)]
    value, gradient = value_and_gradient(losses, valid, ratio)
    torch.testing.assert_close(value, hardest.double().mean().to(dtype))
    expected = torch.where(valid & (losses >= hardest[-1]), 1 / kept, 0.0).to(dtype)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize('dtype', DTYPES)
def test_ties_share_the_last_places(dtype: torch.dtype) -> None:
    losses = torch.tensor([0.0, 2.0, 1.0, -0.0, 1.0, 1.0, 5.0], dtype=dtype)
    valid = torch.tensor([True] * 6 + [False])
    value, gradient = value_and_gradient(losses, valid, 0.5)
    assert value == pytest.approx(4 / 3)
    expected = torch.tensor([0, 1, 2 / 3, 0, 2 / 3, 2 / 3, 0]) / 3
    torch.testing.assert_close(gradient, expected.to(dtype))
    order = torch.tensor([4, 6, 0, 2, 1, 5, 3])
    assert torch.equal(value_and_gradient(losses[order], valid[order], 0.5)[1], gradient[order])


@pytest.mark.parametrize('dtype', DTYPES)
def test_what_is_not_finite(dtype: torch.dtype) -> None:
    losses = torch.tensor([1.0, float('inf'), 2.0, float('nan')], dtype=dtype)
    for sign in (1, -1):
        assert hardest_mean(sign * losses, torch.ones(4).bool(), 0.25).isnan()
    without_nan = torch.tensor([True, True, True, False])
    assert hardest_mean(losses, without_nan, 0.3).isposinf()
    value, gradient = value_and_gradient(losses, torch.tensor([True, False, True, False]), 0.5)
    assert value == 2
    assert gradient.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize('size', [0, 3])
def test_nothing_valid(size: int) -> None:
    losses = torch.full((size,), float('nan'))
    value, gradient = value_and_gradient(losses, torch.zeros(size).bool(), 0.7)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize('num_pixels', range(1, 60))
def test_seven_tenths_are_not_one_pixel_more(num_pixels: int) -> None:
    _, gradient = value_and_gradient(
        torch.arange(num_pixels).float(), torch.ones(num_pixels).bool(), 0.7
    )
    assert gradient.count_nonzero() == -(-7 * num_pixels // 10)
