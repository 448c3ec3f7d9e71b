"""The compiled kernels: that they are there, no less exact than torch, and right at the edges."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sysconfig
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmseg_recall.functional import (
    checked_pixel_nll,
    class_nll_sums,
    seesaw_nll_sum,
    soft_sums,
)
from mmseg_recall.functional.engines import cpu_blocks, cpu_library

NAN, INF = math.nan, math.inf


def test_are_loaded_where_there_is_a_c_compiler() -> None:
    compiler = (sysconfig.get_config_var('CC') or 'cc').split()[0]
    assert cpu_library.LIBRARY is not None or shutil.which(compiler) is None


def test_a_build_of_another_source_is_left_alone(tmp_path) -> None:
    for path in Path(cpu_library.__file__).parent.glob('*cpu_*.*'):
        shutil.copy(path, tmp_path)
    name = f'{cpu_library.__package__}.elsewhere'
    spec = importlib.util.spec_from_file_location(name, tmp_path / 'cpu_library.py')
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert (elsewhere.LIBRARY is None) == (cpu_library.LIBRARY is None)
    if elsewhere.LIBRARY is not None:
        with (tmp_path / 'cpu_kernels.c').open('a') as source:
            source.write('\n')
        with pytest.warns(UserWarning, match='install mmseg_recall again'):
            spec.loader.exec_module(elsewhere)
        assert elsewhere.LIBRARY is None


def test_a_damaged_build_is_left_alone(tmp_path) -> None:
    for path in Path(cpu_library.__file__).parent.glob('cpu_*.*'):
        shutil.copy(path, tmp_path)
    (tmp_path / f'_cpu_kernels{EXTENSION_SUFFIXES[-1]}').write_bytes(b'no library')
    name = f'{cpu_library.__package__}.elsewhere'
    spec = importlib.util.spec_from_file_location(name, tmp_path / 'cpu_library.py')
    elsewhere = importlib.util.module_from_spec(spec)
    with pytest.warns(UserWarning, match='cannot be loaded'):
        spec.loader.exec_module(elsewhere)
    assert elsewhere.LIBRARY is None


def sums(logits: Tensor, target: Tensor, **options) -> list[Tensor]:
    sums, counts = class_nll_sums(logits, target, **options)
    return [sums, *counts]


def pixels(logits: Tensor, target: Tensor, ignore_index: int | None = 255) -> tuple[Tensor, ...]:
    return checked_pixel_nll(logits, target, ignore_index)


def seesaw(logits: Tensor, target: Tensor, ignore_index: int | None = 255) -> tuple[Tensor, ...]:
    """With one class in four never seen, and a weight a pixel."""
    seen = 10 ** (torch.arange(logits.shape[1]) % 4)
    weight = torch.linspace(0.5, 2, target.numel()).view(target.shape)
    options = dict(ignore_index=ignore_index, pixel_weight=weight)
    return (seesaw_nll_sum(logits, target, torch.where(seen == 100, 0, seen), **options),)


FUNCTIONS = {
    'sums': sums,
    'pixels': pixels,
    'soft_iou': soft_sums,
    'soft_iou_per_image': partial(soft_sums, per_image=True),
    'seesaw': seesaw,
}
every_function = pytest.mark.parametrize('name', FUNCTIONS)


@pytest.fixture(params=[64, cpu_blocks.LIBRARY_BLOCK], ids='block{}'.format)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_blocks, 'LIBRARY_BLOCK', request.param)


def results(
    name: str, logits: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch, kernel: bool, **kw
) -> tuple[list[Tensor], Tensor]:
    """What the function returns, and the gradient of a weighted sum of it."""
    logits = logits.detach().requires_grad_()
    with monkeypatch.context() as patch:
        if not kernel:
            patch.setattr(cpu_library, 'LIBRARY', None)
            if name == 'sums':
                kw['impl'] = 'plain'
        values = FUNCTIONS[name](logits, target, **kw)
        total = 0
        for value in values:
            if value.requires_grad:
                total = (
                    total
                    + (value * torch.linspace(0.5, 2, len(value.flatten())).view_as(value)).sum()
                )
        total.backward()
    return [v.detach() for v in values], logits.grad


def problem(size: tuple[int, ...], num_classes: int, scale: float = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(size[0], num_classes, *size[1:], generator=generator)
    target = torch.randint(num_classes, size, generator=generator)
    target[torch.rand(size, generator=generator) < 0.2] = 255
    return logits, target


def mean_error(got: Tensor, truth: Tensor) -> float:
    return (got.double() - truth.double()).abs().mean().item()


# 'soft_iou_per_image' is the same kernel, with too few pixels that matter to compare at 1e4.
@pytest.mark.parametrize('name', ['sums', 'pixels', 'soft_iou', 'seesaw'])
@pytest.mark.parametrize('num_classes', [2, 19, 150])
@pytest.mark.parametrize('scale', [0.01, 3, 30, 1e4])
def test_no_less_exact_than_torch(name, num_classes, scale, monkeypatch) -> None:
    logits, target = problem((2, 90, 101), num_classes, scale)
    truth, true_gradient = results(name, logits.double(), target, monkeypatch, kernel=False)
    torchs, torch_gradient = results(name, logits, target, monkeypatch, kernel=False)
    ours, gradient = results(name, logits, target, monkeypatch, kernel=True)
    # Rounding is a matter of luck: as exact as torch to within a few per cent, and a last bit.
    for got, other, true in zip(ours, torchs, truth, strict=True):
        last_bit = 2**-24 * true.double().abs().mean().item()
        assert mean_error(got, true) <= 1.05 * mean_error(other, true) + last_bit
    last_bit = 2**-24 * true_gradient.abs().mean().item()
    assert mean_error(gradient, true_gradient) <= (
        1.05 * mean_error(torch_gradient, true_gradient) + last_bit
    )


def edge_case(kind: str) -> tuple[Tensor, Tensor]:
    logits, target = problem((2, 7, 9), {'one class': 1, 'thousand classes': 1000}.get(kind, 5))
    if kind == 'one pixel':
        logits, target = logits[:1, :, :1, :1], target[:1, :1, :1].clamp(max=4)
    if kind == 'all equal':
        logits = torch.full_like(logits, -7.5)
    if kind == 'ties':
        logits = logits.round()
    if kind == 'extremes':
        logits[:, 1] = 3e38
        logits[:, 2] = -3e38
    if kind == 'denormals':
        logits = logits * 1e-40
    if kind == '-inf':
        logits[:, 1, :4] = -INF
    if kind == 'all -inf':
        logits[0, :, 2] = -INF
    if kind == '+inf':
        logits[:, 1, :3] = INF
        logits[:, 3, 2:4] = INF
    if kind == 'nan':
        logits[:, 0, :2] = NAN
        logits[:, 3, 1:4] = NAN
        logits[:, 2, 3] = INF
    if kind == 'all ignored':
        target = torch.full_like(target, 255)
    if kind == 'empty':
        logits, target = logits[:0], target[:0]
    if kind == 'no pixels':
        logits, target = logits[:, :, :0], target[:, :0]
    return logits, target


KINDS = [
    'one class', 'two classes', 'thousand classes', 'one pixel', 'all equal', 'ties', 'extremes',
    'denormals', '-inf', 'all -inf', '+inf', 'nan', 'all ignored', 'empty', 'no pixels',
]  # fmt: skip


@every_function
@pytest.mark.parametrize('kind', KINDS)
def test_edges_are_as_in_torch(name, kind, block, monkeypatch) -> None:
    logits, target = edge_case(kind)
    expected, gradient = results(name, logits, target, monkeypatch, kernel=False)
    got, got_gradient = results(name, logits, target, monkeypatch, kernel=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6, equal_nan=True)
    # Where nothing takes part torch may multiply a NaN by zero; elsewhere NaN stays NaN.
    valid = (target != 255).unsqueeze(1).expand_as(gradient)
    torch.testing.assert_close(
        got_gradient[valid], gradient[valid], rtol=1e-5, atol=2e-6, equal_nan=True
    )


@every_function
@pytest.mark.parametrize('ignore_index', [None, 255, -100, 3, -1])
def test_ignored_ids(name, ignore_index, block, monkeypatch) -> None:
    logits, target = problem((2, 7, 9), 5)
    target = torch.where(target == 255, 3 if ignore_index is None else ignore_index, target)
    options = dict(ignore_index=ignore_index)
    expected, gradient = results(name, logits, target, monkeypatch, kernel=False, **options)
    got, got_gradient = results(name, logits, target, monkeypatch, kernel=True, **options)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(got_gradient, gradient, rtol=1e-5, atol=2e-6)


@every_function
@pytest.mark.parametrize('bad', [-1, 5, 255, 2**40, -(2**63)])
def test_unknown_ids_are_named(name, bad, block) -> None:
    logits, target = problem((2, 7, 9), 5)
    target = target.where(target != 255, 0)
    target[1, 3, 3] = bad
    with pytest.raises(ValueError, match=rf'outside \[0, 5\): {bad}\.'):
        FUNCTIONS[name](logits, target, ignore_index=None)


@every_function
@pytest.mark.parametrize('layout', ['channels_last', 'transposed', 'every_other', 'expanded'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_layouts(name, layout, dtype, block, monkeypatch) -> None:
    logits, target = problem((2, 8, 8), 5)
    logits = logits.to(dtype)
    expected, gradient = results(name, logits, target, monkeypatch, kernel=False)
    if layout == 'channels_last':
        logits = logits.contiguous(memory_format=torch.channels_last)
    if layout == 'transposed':
        logits = logits.transpose(2, 3).contiguous().transpose(2, 3)
        target = target.mT.contiguous().mT
    if layout == 'every_other':
        logits = logits.repeat_interleave(2, 3)[..., ::2]
        target = target.repeat_interleave(2, 2)[..., ::2]
    if layout == 'expanded':
        logits, target = logits[:1].expand(2, -1, -1, -1), target[:1].expand(2, -1, -1)
        expected, gradient = results(name, logits, target, monkeypatch, kernel=False)
    got, got_gradient = results(name, logits, target, monkeypatch, kernel=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(got_gradient, gradient, rtol=8 * tolerance, atol=4 * tolerance)


@every_function
def test_plain_labels_and_vectors(name, monkeypatch) -> None:
    logits, target = torch.randn(300, 7), torch.randint(7, (300,))
    expected, gradient = results(name, logits, target, monkeypatch, kernel=False)
    got, got_gradient = results(name, logits, target, monkeypatch, kernel=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(got_gradient, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['pixels', 'soft_iou', 'soft_iou_per_image', 'seesaw'])
def test_gradients_of_gradients_are_those_of_torch(name, monkeypatch) -> None:
    logits, target = problem((1, 5, 6), 4)

    def twice(kernel: bool) -> Tensor:
        x = logits.detach().requires_grad_()
        with monkeypatch.context() as patch:
            if not kernel:
                patch.setattr(cpu_library, 'LIBRARY', None)
            value = FUNCTIONS[name](x, target)[0].square().sum()
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            return torch.autograd.grad(gradient.square().sum(), x)[0]

    torch.testing.assert_close(twice(True), twice(False), rtol=1e-4, atol=1e-5)


@every_function
def test_the_number_of_threads_changes_nothing(name, monkeypatch) -> None:
    logits, target = problem((2, 60, 70), 19)
    monkeypatch.setattr(cpu_blocks, 'LIBRARY_BLOCK', 3000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, gradient = results(name, logits, target, monkeypatch, kernel=True)
        torch.set_num_threads(3)
        together, again = results(name, logits, target, monkeypatch, kernel=True)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(gradient, again)


@every_function
@pytest.mark.parametrize('bits', [0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF, -1])
@pytest.mark.parametrize('at', [0, 1])
def test_a_nan_stays_one_whatever_its_other_bits(name, bits, at) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]] * 20)
    logits[:, at] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    (value, *_) = FUNCTIONS[name](logits, torch.zeros(20, dtype=torch.int64))
    assert value.flatten()[0].isnan()
