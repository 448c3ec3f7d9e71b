"""The Triton kernels: their numbers, and that they compile for GPUs without spilling registers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch._subclasses.fake_tensor import FakeTensorMode

from mmseg_recall import functional
from mmseg_recall.functional import class_nll, class_nll_sums
from mmseg_recall.functional.checks import compute_dtype
from mmseg_recall.functional.engines import cuda
from mmseg_recall.functional.engines.cuda import usable
from mmseg_recall.functional.engines.plain import PLAIN
from tests.functional import test_fused
from tests.functional.interpreter import pick_cuda, use_gpu_kernels

# These run here a second time, on the path of this module.
from tests.functional.test_fused import (
    DTYPES,
    check_resized,
    random_problem,
    scores,
    test_equals_the_oracle,  # noqa: F401
    test_keeps_nothing_of_the_size_of_the_logits,  # noqa: F401
    test_the_gradient_of_a_gradient_is_that_of_the_plain_path,  # noqa: F401
    test_the_weight_of_a_pixel_that_takes_no_part,  # noqa: F401
)
from tests.losses.batches import hostile_batches

NAN, INF = math.nan, math.inf


@pytest.fixture(scope='module', autouse=True)
def path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_gpu_kernels(patch, test_fused)
        yield


@pytest.mark.parametrize('num_classes', [1, 2, 9, 40])
@pytest.mark.parametrize('weighted', [False, True])
def test_equals_the_plain_path(num_classes: int, weighted: bool) -> None:
    """Several strips of pixels, several tiles of classes, and rests of both."""
    logits, target = random_problem((2, 27, 41), num_classes, dtype=torch.float32)
    gradient = torch.linspace(-1, 2, num_classes)
    options = dict(pixel_weight=torch.rand(target.shape)) if weighted else {}
    got = scores(logits, target, gradient, impl='fused', **options)
    want = scores(logits.double(), target, gradient, impl='plain', **options)
    torch.testing.assert_close(got[0].double(), want[0], rtol=1e-6, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))
    torch.testing.assert_close(got[2].double(), want[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size', [(2, 27, 41), (60,)])
def test_pixel_nll_equals_the_plain_path(size: tuple[int, ...]) -> None:
    logits, target = random_problem(size, 9, dtype=torch.float32)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    logits, target = logits.to(device), target.to(device)
    weight = torch.rand(target.shape, device=device)
    outcomes = []
    for engine, x in ((pick_cuda(logits, 'fused'), logits), (PLAIN, logits.double())):
        x = x.detach().requires_grad_()
        nll, valid = engine.pixel_nll(x, target, 255)
        [gradient] = torch.autograd.grad((nll * weight).sum(), x)
        outcomes.append((nll.detach().double(), valid, gradient.double()))
    for got, want in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


TABLES = {
    'soft_counts': lambda n: (False,),
    'soft_counts per image': lambda n: (True,),
    'seesaw': lambda n: (None, torch.arange(n * n).view(n, n) % 7 * -0.3, 2.0),
    'logit_adjusted': lambda n: (
        torch.linspace(0, 2, 130).view(2, 5, 13),
        torch.arange(n).view(n, 1) * -0.1,
        0.0,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('dtype', DTYPES)
def test_no_less_exact_than_torch(dtype: torch.dtype) -> None:
    test_fused.test_no_less_exact_than_torch(dtype)


def test_a_triton_that_cannot_build_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError('Failed to find C compiler')

    monkeypatch.setattr(cuda, '_kernels', fails)
    with pytest.warns(UserWarning, match='Failed to find C compiler.*needs a C compiler'):
        assert not cuda._builds_on.__wrapped__(torch.device('cpu'))
    monkeypatch.undo()
    assert cuda._builds_on.__wrapped__(torch.device('cpu')) == cuda.has_triton()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(batch=hostile_batches(min_channels=2))
def test_hostile_batches(batch) -> None:
    options = dict(ignore_index=batch.ignore_index)
    gradient = torch.ones(batch.num_classes)
    got = scores(batch.logits, batch.target, gradient, impl='fused', **options)
    want = scores(batch.logits.double(), batch.target, gradient, impl='plain', **options)
    # A log-likelihood of 1e5 is a difference of logits whose digits float32 has not all.
    torch.testing.assert_close(got[0].double(), want[0].double(), rtol=1e-5, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))
    rounding = max(torch.finfo(batch.logits.dtype).eps, 1e-5)
    torch.testing.assert_close(got[2].double(), want[2], rtol=rounding, atol=rounding)


@pytest.mark.parametrize('num_classes', [5, 20])
@pytest.mark.parametrize(
    'values', [[0.0], [-0.0, 0.0], [1.0, 2.0], [NAN, 1.0, INF], [INF, 0.0, -INF], [-INF]]
)
def test_what_is_no_number_is_as_in_torch(values: list[float], num_classes: int) -> None:
    """Ties, both zeros, NaN and infinities: sums, gradient and argmax."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(values), (1, num_classes, 4, 30), generator=generator)
    logits = torch.tensor(values)[chosen]
    logits[:, :, 0] = torch.randn(num_classes, 30, generator=generator)
    target = torch.randint(num_classes, (1, 4, 30), generator=generator)
    target[:, :, ::5] = 255
    got, want = (
        scores(logits, target, torch.ones(num_classes), impl=i) for i in ('fused', 'plain')
    )
    torch.testing.assert_close(got[0], want[0], rtol=1e-6, atol=1e-5, equal_nan=True)
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))
    torch.testing.assert_close(got[2], want[2], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize('layout', ['channels_last', 'width_first', 'pixels'])
def test_layouts(layout: str) -> None:
    logits, target = random_problem((2, 6, 7), 5, dtype=torch.float32)
    if layout == 'channels_last':
        logits = logits.contiguous(memory_format=torch.channels_last)
    if layout == 'width_first':
        logits = logits.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == 'pixels':
        logits, target = logits[:, :, 0, 0], target[:, 0, 0]
    got, want = (scores(logits, target, torch.arange(5.0), impl=i) for i in ('fused', 'plain'))
    torch.testing.assert_close(got[0], want[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[2], want[2], rtol=1e-5, atol=1e-6)
    if layout == 'channels_last':
        assert got[2].stride() == logits.stride()


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('low', 'size', 'num_classes', 'dtype'),
    [
        ((2, 3), (8, 12), 5, torch.float32),  # integer scale
        # non-integer scale, several tiles of classes
        pytest.param((3, 4), (11, 15), 19, torch.float32, marks=pytest.mark.slow),
        pytest.param((4, 4), (13, 13), 5, torch.bfloat16, marks=pytest.mark.slow),
        ((9, 8), (4, 3), 5, torch.float32),  # smaller
        ((1, 1), (4, 5), 2, torch.float16),
        ((5, 2), (5, 6), 5, torch.float32),  # one axis stays as it is
        ((1, 130), (2, 140), 2, torch.float32),  # more columns than a program takes
    ],
)
def test_resized_equals_interpolate(low, size, num_classes, dtype, align_corners) -> None:
    check_resized(low, size, align_corners, dtype, num_classes)


def test_the_tails_gradient_keeps_the_layout() -> None:
    logits = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    logits = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    _, target = random_problem((2, 9, 13), 5)
    got, want = (
        # Not .backward(), which gives the gradient the layout of the leaf.
        torch.autograd.grad(test_fused.resized_class_nll_sums(x, target)[0].sum(), x)[0]
        for x in (logits, logits.contiguous())
    )
    assert got.stride() == logits.stride()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('resized', [False, True])
def test_grids_are_within_the_limits(monkeypatch: pytest.MonkeyPatch, resized: bool) -> None:
    """Of CUDA, which the interpreter does not know: 65535 along the second and third axis."""
    grids = []

    class Launcher:
        def __getattr__(self, name: str) -> Launcher:
            return self

        def __getitem__(self, grid: tuple[int, ...]):
            grids.append(grid)
            return lambda *_, **__: None

    monkeypatch.setattr(class_nll, 'pick_engine', lambda *_: cuda.CUDA)
    monkeypatch.setattr(cuda, '_kernels', Launcher)
    monkeypatch.setattr(cuda, 'check_in_a_later_step', lambda *_: None)
    logits = torch.zeros(70_000, 9, 1, 1, requires_grad=True)
    target = torch.zeros(70_000, 1 + resized, 1, dtype=torch.int64)
    if resized:
        functional.resized_class_nll_sums(logits, target)[0].sum().backward()
    else:
        functional.class_nll_sums(logits, target, impl='fused')[0].sum().backward()
    assert len(grids) == 2 and all(len(grid) == 1 for grid in grids)


def test_no_pixel_takes_part() -> None:
    logits, target = random_problem((1, 3, 3), 4, dtype=torch.float32)
    target.fill_(255)
    sums, counts, grad = scores(logits, target, torch.ones(4), impl='fused')
    assert not (sums.any() or torch.stack(counts).any() or grad.any())


@pytest.mark.parametrize(('ids', 'found'), [([300], '300'), ([-7, 9], '-7.* 9')])
def test_unknown_ids_are_refused(ids: list[int], found: str) -> None:
    logits, target = random_problem((1, 30, 30), 4, dtype=torch.float32)
    target[0, 20, : len(ids)] = torch.tensor(ids)
    with pytest.raises(ValueError, match=found):
        for _ in range(2):  # on a GPU it is the next call that raises
            test_fused.class_nll_sums(logits, target, impl='fused')
            if torch.cuda.is_available():
                torch.cuda.synchronize()


def test_is_for_tensors_on_a_gpu() -> None:
    logits = torch.zeros(1, 2, 3)
    assert not usable(logits)
    assert usable(logits.cuda()) if torch.cuda.is_available() else True


def test_is_not_for_tensors_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, '_runs_on', lambda device: True)
    with FakeTensorMode():
        logits = torch.empty(1, 2, 3, device='cuda')
    assert logits.is_cuda and not usable(logits)


@pytest.mark.parametrize(('capability', 'runs'), [((6, 1), False), ((7, 0), True), ((9, 0), True)])
def test_is_for_gpus_that_triton_knows(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert cuda._runs_on.__wrapped__(torch.device('cuda', 0)) is runs


def test_distances_within_an_image_fit_32_bits() -> None:
    with torch.device('meta'):
        assert cuda.supported(torch.empty(9, 150, 2048, 2048)) == cuda.has_triton()
        assert cuda.supported(torch.empty(2**20, 19)) == cuda.has_triton()
        for size in [(1, 1000, 2048, 2048), (2**28, 19)]:
            assert not cuda.supported(torch.empty(size))
        assert not cuda.supported(torch.empty(1, 500, 2048, 4096)[..., ::2])
        assert not cuda.supported(torch.empty(0, 19, 8, 8))


if cuda.has_triton():

    @pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
    @pytest.mark.parametrize('num_classes', [2, 19, 150, 1025])
    @pytest.mark.parametrize('name', TABLES)
    def test_columns_equal_the_plain_path(name: str, num_classes: int, dtype: torch.dtype) -> None:
        """Of whole columns, those with more classes than a program takes by torch operations."""
        logits, target = random_problem((2, 5, 13), num_classes, dtype=dtype)
        function = 'soft_counts' if name.startswith('soft') else 'adjusted_nll'
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        target, outcomes = target.to(device), []
        for engine, x in ((cuda.CUDA, logits), (PLAIN, logits.double())):
            x = x.to(device, copy=True).requires_grad_()
            compute = dict(device=device, dtype=compute_dtype(x))
            given = TABLES[name](num_classes)
            given = [c.to(**compute) if isinstance(c, torch.Tensor) else c for c in given]
            *smooth, counts = getattr(engine, function)(x, target, 255, *given)
            total = sum((s * torch.linspace(0.5, 2, s.numel()).view_as(s)).sum() for s in smooth)
            [gradient] = torch.autograd.grad(total, x)
            outcomes.append(([s.detach().double() for s in smooth], counts, gradient.double()))
        (got, counts, gradient), (want, true_counts, true_gradient) = outcomes
        assert torch.equal(counts, true_counts)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        rounding = max(2e-5, torch.finfo(dtype).eps)
        largest = true_gradient.abs().max().item()
        torch.testing.assert_close(gradient, true_gradient, rtol=rounding, atol=rounding * largest)

    @pytest.mark.parametrize('infinity', [INF, -INF])
    @pytest.mark.parametrize('align_corners', [False, True])
    def test_an_infinite_logit_reaches_the_pixels_that_it_has_a_share_in(
        align_corners: bool, infinity: float
    ) -> None:
        """And none where that is 0, of which F.interpolate makes 0 times infinity."""
        logits = torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        options = dict(size=(9, 9), mode='bilinear', align_corners=align_corners)
        infinite = torch.zeros(1, 3, 3, 3)
        infinite[0, 1, 1, 1] = 1
        shares = F.interpolate(infinite, **options)
        full = F.interpolate(logits, **options).masked_fill(shares > 0, infinity)
        logits[0, 1, 1, 1] = infinity
        for y in range(9):
            target = torch.full((1, 9, 9), 255)
            target[0, y] = torch.arange(9) % 3
            want = class_nll_sums(full, target, impl='plain')
            got = test_fused.resized_class_nll_sums(logits, target, align_corners=align_corners)
            torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5, equal_nan=True)
            assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))

    @pytest.mark.slow
    def test_compiles_for_gpus_without_spilling() -> None:
        """The compiler, which needs no GPU to compile for one, refuses what is interpreted."""
        done = subprocess.run(
            [sys.executable, '-m', 'tests.functional.compile_kernels'],
            env={k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'},
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr
        kernels = [json.loads(line) for line in done.stdout.splitlines() if line[0] == '{']
        assert len(kernels) == 112
        # Two spilled registers, of 4 bytes, by some Tritons.
        assert [k for k in kernels if k['stack'] > 8] == []
        # 8 or 16 bytes at a time, where rows are a multiple of 16.
        narrow = 'resized', 'channels_last'
        even = [k for k in kernels if k['even'] and not any(n in k['kernel'] for n in narrow)]
        assert all(k['wide_loads'] >= 6 for k in even)
        stores = [k for k in even if 'differentiate' in k['kernel']]
        # Columns have half as many logits a thread.
        assert all(k['wide_stores'] >= (2 if 'columns' in k['kernel'] else 4) for k in stores)
