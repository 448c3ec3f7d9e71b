"""Whatever a head, a config or torch's settings do around a loss: the same value, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmseg_recall.functional import (
    class_nll_sums,
    lovasz_softmax,
    resized_class_nll_sums,
    seesaw_nll_sum,
)
from mmseg_recall.functional.engines import cpu_library
from mmseg_recall.losses import ClassCountsLoss, RecallLoss, available_losses
from mmseg_recall.losses.base import RegionLoss
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


@every_loss
def test_labels_of_one_channel_are_0_and_1(name: str) -> None:
    with pytest.raises(ValueError, match=r'outside \[0, 2\).*: 2\. .*mask of 0 and 255'):
        build(name, 2)(torch.zeros(1, 1, 4), torch.tensor([[0, 2, 1, 0]]))


@every_loss
@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ((torch.rand(4), torch.zeros(4).long()), r'logits must be \(N, C, ...\)'),
        ((torch.rand(2, 3, 4), np.zeros((2, 4))), 'target must be a tensor, got ndarray'),
        ((torch.rand(2, 3, 4).tolist(), torch.zeros(2, 4).long()), 'logits must be a tensor'),
        ((torch.rand(2, 3, 4), None), 'target must be a tensor, got NoneType'),
        ((torch.rand(2, 1, 4), torch.rand(2, 1, 4)), 'soft labels'),
        ((torch.rand(2, 1, 4), torch.rand(2, 4)), r'got torch.float32: give target\.long\(\)'),
        ((torch.rand(2, 4, 4), torch.rand(2, 4, 4)), r'got torch.float32: give target\.long\(\)'),
        ((torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)), 'Soft labels, .* remove batch_augments'),
        ((torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).long()), r'target\.argmax\(1\)'),
        ((torch.rand(2, 3), torch.zeros(2, 3)), r'target\.argmax\(1\)'),
        ((torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4).long()), r'target\.squeeze\(1\)'),
        ((torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4).long()), 'same N'),
    ],
)
def test_what_is_no_batch_is_refused(name: str, given: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(name, 3)(*given)


@every_loss
@pytest.mark.parametrize('num_channels', [1, 2])
def test_a_mask_of_0_and_255_is_noticed(name: str, num_channels: int) -> None:
    logits = torch.randn(2, num_channels, 4, 4)
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    mask[:, :2] = 255
    loss = build(name, 2)
    with pytest.warns(UserWarning, match=r'no label 1.* give \(mask > 0\)\.long\(\)'):
        loss(logits, mask)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loss(logits, mask)  # said once
        build(name, 2)(logits, (mask > 0).long())
    with pytest.raises(ValueError, match=r'255.* give \(mask > 0\)\.long\(\)'):
        build(name, 2, ignore_index=None)(logits, mask)


ONE_CHANNEL = {
    '(N, 1, H, W) and (N, H, W)': (lambda z: z, lambda y: y),
    '(N, 1, H, W) and (N, 1, H, W)': (lambda z: z, lambda y: y.unsqueeze(1)),
    '(N, H, W) and (N, H, W)': (lambda z: z.squeeze(1), lambda y: y),
}


@every_loss
@pytest.mark.parametrize('shapes', ONE_CHANNEL)
@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_one_channel_is_two_classes(name: str, shapes: str, use_sigmoid: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 1, 9, 8, generator=generator)
    target = torch.randint(2, (2, 9, 8), generator=generator)
    target[0, :3] = 255
    of_z, of_target = ONE_CHANNEL[shapes]
    one, two = (z.clone().requires_grad_() for _ in range(2))
    value = build(name, 2, use_sigmoid=use_sigmoid)(of_z(one), of_target(target))
    want = build(name, 2)(torch.cat([torch.zeros_like(two), two], 1), target)
    value.backward()
    want.backward()
    torch.testing.assert_close(value, want, rtol=1e-6, atol=0)
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-6, atol=1e-9)
    assert value > 0 and one.grad.any()


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
    if cpu_library.LIBRARY is not None:
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
