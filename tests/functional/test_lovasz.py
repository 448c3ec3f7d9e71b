"""Lovasz-Softmax: sorted, and counted in bins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmseg_recall.functional import class_nll_sums, lovasz, lovasz_softmax
from mmseg_recall.functional.engines import cpu_blocks
from tests.losses.batches import Batch, batches
from tests.losses.test_oracle import assume_no_ties
from tests.oracles import lovasz_softmax as oracle

IMPLS = ('plain', 'fused')


@pytest.fixture(params=IMPLS)
def impl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Counted however few pixels there are."""
    monkeypatch.setattr(lovasz, 'FEW', 0)
    yield request.param


def value_and_gradient(logits: Tensor, target: Tensor, **options) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = lovasz_softmax(logits, target, **options)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def relative_errors(logits: Tensor, target: Tensor, **options) -> tuple[float, float]:
    """Of the value, relative, and of the gradient, in its norm, but for pixels that all but tie."""
    want, want_gradient = value_and_gradient(logits.double(), target, exact=True)
    value, gradient = value_and_gradient(logits, target, **options)
    difference = (gradient - want_gradient).masked_fill(all_but_tied(logits, target), 0.0)
    return (
        (abs(value - want) / want).item(),
        (difference.norm() / want_gradient.norm()).item(),
    )


def all_but_tied(logits: Tensor, target: Tensor) -> Tensor:
    """(N, 1, ...) the pixels among the 256 hardest of a class with another one within 1e-6.

    One step of rank is much of a gradient there, and float32 has seven digits.
    """
    valid = target.flatten() < logits.shape[1]
    p = logits.double().softmax(1).transpose(0, 1).flatten(1)
    classes = torch.arange(len(p)).unsqueeze(1)
    errors = torch.where(target.flatten() == classes, 1 - p, p).masked_fill_(~valid, -1.0)
    hardest, index = errors.topk(min(256, len(valid)), dim=1)
    close = F.pad((hardest[:, :-1] - hardest[:, 1:] <= 1e-6).int(), (1, 1))
    tied = torch.zeros(errors.shape, dtype=torch.int32)
    tied.scatter_(1, index, close[:, :-1] | close[:, 1:])
    return tied.any(0).view(target.shape).unsqueeze(1)


def assert_within_the_bound(logits: Tensor, target: Tensor, **options) -> None:
    of_value, of_gradient = relative_errors(logits, target, **options)
    assert of_value <= 1e-4 and of_gradient <= 1e-3


@settings(max_examples=40, deadline=None)
@given(batch=batches(dtypes=(torch.float64, torch.float32)))
def test_sorted_equals_the_oracle(batch: Batch) -> None:
    assume_no_ties(batch)
    expected, expected_gradient = oracle.loss(batch.pixels(), batch.num_classes)
    value, gradient = value_and_gradient(batch.logits, batch.target, exact=True)
    relative = 1e-9 if batch.logits.dtype == torch.float64 else 1e-6
    assert abs(value.item() - expected) <= relative
    gradient = batch.flat_logits(gradient)
    assert torch.all(gradient[~batch.valid] == 0)
    assume(expected_gradient)
    want = torch.tensor(expected_gradient, dtype=torch.double)
    assert (gradient[batch.valid] - want).abs().max() <= relative * max(1, want.abs().max())


def random_batch(seed: int) -> tuple[Tensor, Tensor]:
    """2 to 19 classes, balanced or rarer and rarer, from logits all but equal to sure ones."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=generator).item()

    num_classes, side = int(uniform(2, 20)), int(uniform(130, 260))
    rarity = max(uniform(-0.5, 1.5), 0)
    frequency = torch.exp(-rarity * torch.arange(num_classes))
    target = torch.multinomial(frequency, side * side, replacement=True, generator=generator)
    logits = 10 ** uniform(-3, 1) * torch.randn(side * side, num_classes, generator=generator)
    logits += max(uniform(-2, 2), 0) * torch.randn(num_classes, generator=generator)
    learnt = torch.rand(side * side, generator=generator) < uniform(0, 1)
    margin = max(uniform(-10, 15), 0) * learnt.float()
    logits.scatter_add_(1, target.unsqueeze(1), margin.unsqueeze(1))
    target[torch.rand(side * side, generator=generator) < max(uniform(-0.5, 0.5), 0)] = 255
    return logits.t().reshape(1, num_classes, side, side), target.view(1, side, side)


@pytest.mark.parametrize('seed', [*range(4), 630])  # of 630 a few pairs were 1.2e-3 off once
def test_counted_is_within_the_bound(seed: int, impl: str) -> None:
    assert_within_the_bound(*random_batch(seed), impl=impl)


@pytest.mark.slow
@settings(deadline=None)
@given(seed=st.integers(0, 2**31))
def test_counted_is_within_the_bound_of_many(seed: int) -> None:
    """With ``--hypothesis-profile=thorough`` of 10,000."""
    assert_within_the_bound(*random_batch(seed))


def hostile(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (1, 5, 150, 150)
    logits = 2 * torch.randn(size, generator=generator)
    target = torch.randint(5, (1, 150, 150), generator=generator)
    label = target.unsqueeze(1)
    if name == 'one valid pixel':
        target.fill_(255)[0, 3, 4] = 2
    elif name == 'one pixel of each class but one':
        target.zero_()[0, 7, :4] = torch.arange(1, 5)
    elif name == 'one class':
        target.fill_(3)
    elif name == 'all but equal':
        logits *= 1e-4
    elif name == 'two classes all but equal':
        logits, target = 1e-4 * logits[:, :2], target % 2
    elif name == 'sure and right':
        logits.scatter_add_(1, label, torch.full(label.shape, 18.0))
    elif name == 'sure and wrong':
        logits.scatter_add_(1, (label + 1) % 5, torch.full(label.shape, 12.0))
    elif name == 'far apart':
        logits *= 1000
    elif name == 'a few kinds of pixels':
        logits += 5 * logits[:, :, :1, :7].repeat(1, 1, 150, 22)[..., :150]
    elif name == 'more classes than pixels':
        logits = 2 * torch.randn(1, 300, 16, 16, generator=generator)
        target = torch.randint(300, (1, 16, 16), generator=generator)
    return logits, target


@pytest.mark.parametrize(
    'name',
    [
        *('one valid pixel', 'one pixel of each class but one', 'one class', 'all but equal'),
        *('two classes all but equal', 'sure and right', 'sure and wrong', 'far apart'),
        *('a few kinds of pixels', 'more classes than pixels'),
    ],
)
def test_hostile_batches_are_within_the_bound(name: str, impl: str) -> None:
    assert_within_the_bound(*hostile(name), impl=impl)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('sorts', [False, True])
def test_resized(
    sorts: bool, dtype: torch.dtype, align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the functions give of the logits that F.interpolate resizes."""
    monkeypatch.setattr(lovasz, 'FEW', 10**6 if sorts else 0)
    monkeypatch.setattr(cpu_blocks, 'TORCH_BLOCK', 5000)  # some tiles
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 5, 19, 24, generator=generator, dtype=torch.double)
    target = torch.randint(4, (2, 150, 190), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    factor = torch.linspace(0, 1e-4, 5)

    def outcome(x: Tensor, resize_first: bool, **options) -> tuple[Tensor, ...]:
        x = x.detach().requires_grad_()
        if resize_first:
            size = target.shape[1:]
            full = F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
            value = lovasz_softmax(full, target, **options)
            sums, counts = class_nll_sums(full, target)
        else:
            sums, value, counts = lovasz.resized_class_nll_sums_and_lovasz(
                x, target, align_corners=align_corners
            )
        gradient = torch.autograd.grad(2 * value + (factor.to(sums) * sums).sum(), x)[0]
        return value.detach(), gradient, sums.detach(), torch.stack(counts)

    got = outcome(logits.to(dtype), False)
    if dtype == torch.float64:
        for one, other in zip(got, outcome(logits, True), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    value, gradient, sums, counts = outcome(logits, True, exact=True)
    assert abs(got[0] - value) <= 1e-4 * value
    assert (got[1] - gradient).norm() <= 1e-3 * gradient.norm()
    torch.testing.assert_close(got[2].double(), sums, rtol=1e-6, atol=0)
    assert torch.equal(got[3], counts)


def test_resized_refuses_labels_that_mean_nothing() -> None:
    logits, target = torch.zeros(1, 3, 20, 20), torch.full((1, 140, 140), 7)
    with pytest.raises(ValueError, match='7'):
        lovasz.resized_class_nll_sums_and_lovasz(logits, target)
    with pytest.raises(ValueError, match=r'\(N, C, h, w\)'):
        lovasz.resized_class_nll_sums_and_lovasz(logits[0], target)


@pytest.mark.parametrize('exact', [False, True])
def test_gradients_of_large_images_keep_their_digits(exact: bool) -> None:
    """The Jaccard distance moves by a millionth a pixel, which float32 hardly holds as 1 - IoU."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(4, (2, 300, 300), generator=generator)
    logits = torch.randn(2, 5, 300, 300, generator=generator)
    truth = value_and_gradient(logits.double(), target, exact=True)
    value, gradient = value_and_gradient(logits, target, exact=exact)
    relative = 1e-6 if exact else 1e-4
    assert abs(value - truth[0]) <= 1e-6 * truth[0]
    assert (gradient - truth[1]).abs().mean() <= relative * truth[1].abs().mean()


@pytest.mark.parametrize('ignored', [False, True])
def test_nan_propagates(ignored: bool, impl: str) -> None:
    for exact in (False, True):
        logits, target = torch.zeros(1, 3, 2, 4), torch.zeros(1, 2, 4, dtype=torch.int64)
        target[0, 1] = 1
        logits[0, 2, 0, 0] = float('nan')
        if ignored:
            target[0, 0, 1] = 255
        assert lovasz_softmax(logits, target, exact=exact, impl=impl).isnan()
        target[0, 0, 0] = 255  # the pixel with the NaN
        value, gradient = value_and_gradient(logits, target, exact=exact, impl=impl)
        assert value > 0 and gradient.isfinite().all()


def test_all_ignored(impl: str) -> None:
    for exact in (False, True):
        logits, target = torch.randn(2, 3, 4), torch.full((2, 4), 255)
        value, gradient = value_and_gradient(logits, target, exact=exact, impl=impl)
        assert value == 0 and torch.all(gradient == 0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_scaled_gradient(dtype: torch.dtype, impl: str) -> None:
    """Rounded once, behind the factor of a gradient scaler."""
    logits, target = random_batch(0)
    logits = logits.to(dtype)
    scaled, single = logits.clone().requires_grad_(), logits.float().requires_grad_()
    (2.0**12 * lovasz_softmax(scaled, target, impl=impl)).backward()
    (2.0**12 * lovasz_softmax(single, target, impl=impl)).backward()
    torch.testing.assert_close(scaled.grad, single.grad.to(dtype))


def test_second_derivatives_are_those_of_constant_slopes(impl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 10, 10, generator=generator)
    target = torch.randint(3, (1, 10, 10), generator=generator)
    direction = torch.randn(logits.shape, generator=generator)
    products = []
    for options in (dict(exact=True), dict(impl=impl)):
        x = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            lovasz_softmax(x, target, **options), x, create_graph=True
        )
        products.append(torch.autograd.grad((gradient * direction).sum(), x)[0])
    difference = (products[0] - products[1]).norm()
    assert products[0].norm() > 0 and difference <= 1e-3 * products[0].norm()


@pytest.mark.parametrize('few', [0, lovasz.FEW])
def test_compiles_without_a_graph_break(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lovasz, 'FEW', few)
    logits, target = torch.randn(1, 3, 4, 4), torch.arange(16).view(1, 4, 4) % 3
    torch._dynamo.reset()
    compiled = torch.compile(lovasz_softmax, fullgraph=True, backend='aot_eager')
    value, gradient = value_and_gradient(logits, target)
    logits.requires_grad_()
    got = compiled(logits, target)
    torch.testing.assert_close(got, value)
    torch.testing.assert_close(torch.autograd.grad(got, logits)[0], gradient)
