"""Whatever a head, a config or torch's settings do around a loss: the same value, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmseg_recall.functional import (
    class_nll_sums,
    kernels,
    lovasz_softmax,
    resized_class_nll_sums,
    seesaw_nll_sum,
)
from mmseg_recall.losses import available_losses
from mmseg_recall.losses.class_counts import ClassCountsLoss
from mmseg_recall.losses.performance_balanced import RecallLoss
from mmseg_recall.losses.region_based import RegionLoss
from mmseg_recall.losses.seesaw import SeesawLoss

from .test_properties import build, every_loss

LOSSES = available_losses()
WEIGHTING = [name for name, cls in LOSSES.items() if not issubclass(cls, RegionLoss)]


def batch(size: tuple[int, ...] = (9, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *size, generator=generator)
    return logits, torch.randint(3, (2, *size), generator=generator)


@every_loss
def test_a_mean_is_all_there_is(name: str) -> None:
    loss = build(name, 3)
    value = loss(*batch())
    assert torch.equal(loss(*batch(), reduction_override='mean'), value)
    for other, words in [('sum', "a mean only: .* got 'sum'"), ('none', 'no value per pixel')]:
        with pytest.raises(ValueError, match=words):
            loss(*batch(), reduction_override=other)


@pytest.mark.parametrize('name', WEIGHTING)
@pytest.mark.parametrize('dtype', [torch.bool, torch.int32, torch.int64, torch.float64])
def test_a_weight_of_any_type_counts_as_its_values(name: str, dtype: torch.dtype) -> None:
    logits, target = batch()
    mask = (target != 0).to(dtype)
    got, want = (build(name, 3)(logits, target, weight=m) for m in (mask, mask.float()))
    assert torch.equal(got, want) and want > 0


@pytest.mark.parametrize('shape', [(2, 2, 2), (2, 1, 9, 8), (9, 8), ()])
@pytest.mark.parametrize('name', WEIGHTING)
def test_a_weight_of_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r'must have the shape of target, \(2, 9, 8\)'):
        build(name, 3)(*batch(), weight=torch.ones(shape))


def test_functions_refuse_a_weight_of_another_shape() -> None:
    logits, target = batch()
    for function in (class_nll_sums, seesaw_nll_sum):
        options = {} if function is class_nll_sums else dict(pixels=torch.ones(3).long(), p=1, q=1)
        with pytest.raises(ValueError, match='shape of target'):
            function(logits, target, pixel_weight=torch.ones(2, 1, 9, 8), **options)


@pytest.mark.parametrize('pixels', [torch.ones(2), torch.ones(3, 3), torch.ones(3, device='meta')])
def test_seesaw_refuses_counts_that_are_not_one_a_class(pixels: Tensor) -> None:
    with pytest.raises(ValueError, match='pixels must hold a count for each of the 3 classes'):
        seesaw_nll_sum(*batch(), pixels)


@every_loss
def test_a_target_elsewhere_is_refused(name: str) -> None:
    logits, target = batch()
    with pytest.raises(ValueError, match='target is on meta and logits are on cpu'):
        build(name, 3)(logits, target.to('meta'))


def test_a_head_of_one_channel_is_told_what_to_set() -> None:
    with pytest.raises(ValueError, match='set out_channels=2 in the head'):
        RecallLoss()(torch.zeros(1, 1, 4), torch.tensor([[0, 1, 1, 0]]))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@every_loss
@pytest.mark.parametrize(
    'setting',
    [
        partial(default_dtype, torch.float64),
        partial(default_dtype, torch.bfloat16),
        partial(torch.device, 'meta'),
    ],
    ids=['float64', 'bfloat16', 'meta'],
)
def test_default_type_and_device_do_not_matter(name: str, setting: Callable) -> None:
    logits, target = batch()
    results = []
    for around in (partial(default_dtype, torch.float32), setting):
        loss, leaf = build(name, 3), logits.clone().requires_grad_()
        with around():
            value = loss(leaf, target)
            value.backward()
        results.append((value.detach(), leaf.grad))
    for want, got in zip(*results, strict=True):
        assert torch.equal(got, want)


def test_a_tensor_without_memory_is_not_read() -> None:
    """Tracing tools run models on such tensors."""
    with FakeTensorMode() as mode:
        logits, target = (mode.from_tensor(t) for t in batch())
        with pytest.raises(DataDependentOutputException):  # are all labels classes?
            class_nll_sums(logits, target)
    if kernels.LIBRARY is not None:
        with pytest.raises(RuntimeError, match='FakeTensor that goes with them'):
            class_nll_sums(batch()[0], target)


class Older:
    """The setting of before torch 2.9, as an attribute like those that came then."""

    @property
    def fp32_precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @fp32_precision.setter
    def fp32_precision(self, precision: str) -> None:
        torch.set_float32_matmul_precision(precision)


# Which of them there are depends on the version of torch.
BACKENDS = [
    (backend, precision)
    for backend, precision in [
        (torch.backends, 'tf32'),
        (torch.backends.cuda.matmul, 'tf32'),
        (torch.backends.cudnn, 'tf32'),
        (getattr(torch.backends.mkldnn, 'matmul', None), 'bf16'),
    ]
    if hasattr(backend, 'fp32_precision')
]


@pytest.mark.parametrize(('backend', 'precision'), [(Older(), 'high'), *BACKENDS])
def test_matmul_precision_is_left_as_the_user_set_it(backend, precision: str) -> None:
    logits, target = batch()
    target = target.repeat_interleave(4, 1).repeat_interleave(4, 2)
    want = resized_class_nll_sums(logits, target)[0]
    lovasz = lovasz_softmax(logits, target[:, ::4, ::4])
    everywhere = [b.fp32_precision for b, _ in BACKENDS]
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        set_by_user = [backend.fp32_precision, *[b.fp32_precision for b, _ in BACKENDS]]
        got = resized_class_nll_sums(logits, target)[0]
        assert torch.equal(lovasz_softmax(logits, target[:, ::4, ::4]), lovasz)
        RecallLoss()(*batch())
        assert [backend.fp32_precision, *[b.fp32_precision for b, _ in BACKENDS]] == set_by_user
    finally:
        backend.fp32_precision = before
    assert torch.equal(got, want)
    if not isinstance(backend, Older):  # which sets more than one
        # What inherits the setting has not been pinned to it.
        assert [b.fp32_precision for b, _ in BACKENDS] == everywhere


class Model(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.loss = loss


@pytest.mark.parametrize('update_buffers', [False, True])
@pytest.mark.parametrize('make', [lambda: RecallLoss(momentum=0.9, begin=2), SeesawLoss])
def test_an_average_of_the_model(make, update_buffers: bool) -> None:
    """EMAHook copies the model before its first batch."""
    model = Model(make())
    averaged = ExponentialMovingAverage(model, update_buffers=update_buffers)
    for _ in range(2):
        logits, target = batch()
        model.loss(model.conv(logits), target)
        averaged.update_parameters(model)
    state = model.state_dict()
    assert {name for name in state if name.startswith('loss.')} == {
        f'loss.{name}' for name in model.loss.running_names
    }
    fresh = Model(make())
    fresh.load_state_dict(state)
    fresh.load_state_dict(averaged.module.state_dict())
    for name in fresh.loss.running_names:
        torch.testing.assert_close(
            getattr(fresh.loss, name), getattr(model.loss, name), equal_nan=True
        )


def test_what_a_loss_keeps_survives_a_cast_of_the_model() -> None:
    loss = RecallLoss(momentum=0.9)
    loss(*batch())
    kept = loss.half().running_recall.clone()
    loss(*batch())
    assert loss.running_recall.dtype == torch.float64
    torch.testing.assert_close(loss.running_recall, kept)


@pytest.mark.parametrize('cls', [RecallLoss, SeesawLoss])
def test_what_a_loss_keeps_is_read_in_any_type(cls) -> None:
    """From a checkpoint that somebody has cast to save space."""
    options = dict(momentum=0.9) if cls is RecallLoss else {}
    trained, loss = cls(**options), cls(**options)
    trained(*batch())
    loss.load_state_dict({k: v.half() for k, v in trained.state_dict().items()})
    loss(*batch())
    (name,) = trained.state_dict()
    assert getattr(loss, name).dtype == getattr(trained, name).dtype


@pytest.mark.parametrize('name', [n for n, c in LOSSES.items() if issubclass(c, ClassCountsLoss)])
def test_class_weights_survive_a_cast_of_the_model(name: str) -> None:
    counts = [10**9, 10, 10**6]
    loss, cast = (LOSSES[name](class_counts=counts) for _ in range(2))
    nn.Sequential(cast).half().bfloat16()
    assert all(map(torch.equal, cast.buffers(), loss.buffers()))
    assert torch.equal(cast(*batch()), loss(*batch()))
