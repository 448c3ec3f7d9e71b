"""The fused class sums: against the float64 oracle, against the plain path, and at the edges."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmseg_recall import functional
from mmseg_recall.functional import (
    class_nll_sums,
    resized_class_nll_sums,
)
from mmseg_recall.functional.engines import cpu, cpu_blocks, cpu_library
from tests.losses.batches import batches
from tests.oracles.common import count, nll_sums, softmax

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}


@pytest.fixture(params=[400, cpu_blocks.TORCH_BLOCK], ids='block{}'.format)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Many small blocks, and everything at once."""
    set_block(monkeypatch, request.param)
    monkeypatch.setattr(cpu, 'TILE_COLUMNS', min(request.param // 20, cpu.TILE_COLUMNS))
    return request.param


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(cpu_blocks, 'TORCH_BLOCK', size)
    monkeypatch.setattr(cpu_blocks, 'LIBRARY_BLOCK', size)


def scores(
    logits: Tensor, target: Tensor, gradient: Tensor, **options
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Sums, counts, and the gradient of the logits for ``gradient`` of the sums."""
    logits = logits.detach().requires_grad_()
    sums, counts = class_nll_sums(logits, target, **options)
    sums.backward(gradient.to(sums.dtype))
    return sums.detach(), list(counts), logits.grad


def random_problem(size: tuple[int, ...], num_classes: int, seed: int = 0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    shape = (size[0], num_classes, *size[1:])
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.double)
    target = torch.randint(num_classes, size, generator=generator)
    target[torch.rand(size, generator=generator) < 0.2] = 255
    return logits.to(**kwargs), target


@settings(max_examples=60, deadline=None)
@given(batch=batches(), seed=st.integers(0, 99), weighted=st.booleans(), size=st.integers(1, 40))
def test_equals_the_oracle(batch, seed, weighted, size) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(batch.num_classes, generator=generator, dtype=torch.double)
    pixel_weight = torch.rand(batch.target.shape, generator=generator) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        set_block(patch, size)
        sums, counts, got = scores(
            batch.logits, batch.target, gradient, impl='fused', pixel_weight=pixel_weight
        )

    pixels = batch.pixels()
    assert [c.tolist() for c in counts] == [*(list(c) for c in count(pixels, batch.num_classes))]
    tolerance = RELATIVE[batch.logits.dtype]
    if not weighted:
        expected = torch.tensor(nll_sums(pixels, batch.num_classes), dtype=torch.double)
        torch.testing.assert_close(sums.double(), expected, rtol=tolerance, atol=tolerance)
    factors = torch.ones(len(pixels)) if not weighted else pixel_weight.flatten()[batch.valid]
    got = batch.flat_logits(got)
    assert torch.all(got[~batch.valid] == 0)
    for row, (z, y), factor in zip(got[batch.valid], pixels, factors, strict=True):
        want = torch.tensor([p - (c == y) for c, p in enumerate(softmax(z))], dtype=torch.double)
        rounding = max(tolerance, torch.finfo(batch.logits.dtype).eps)
        torch.testing.assert_close(
            row, want * gradient[y] * factor, rtol=rounding, atol=5 * tolerance
        )


DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize('dtype', DTYPES)
def test_no_less_exact_than_torch(dtype: torch.dtype) -> None:
    logits, target = random_problem((2, 150, 200), 19, dtype=dtype)
    truth, _, true_gradient = scores(logits.double(), target, torch.ones(19), impl='plain')
    sums, _, gradient = scores(logits, target, torch.ones(19), impl='fused')
    x = logits.float().requires_grad_()
    nll = F.cross_entropy(x, target, ignore_index=255, reduction='none')
    nll.sum().backward()
    torch_sums = torch.stack([nll[target == c].sum() for c in range(19)]).detach()

    def error(values: Tensor, truth: Tensor) -> Tensor:
        return (values.double() - truth).abs().mean()

    assert error(sums, truth) <= error(torch_sums, truth)
    if dtype == torch.float32:
        assert error(gradient, true_gradient) <= 1.05 * error(x.grad, true_gradient)


@pytest.mark.parametrize('kind', ['zeros', 'steps', 'nan', 'nan_and_ties', 'inf'])
def test_predictions_are_torch_argmax(kind: str, block: int) -> None:
    logits, target = random_problem((2, 9, 11), 5, dtype=torch.float32)
    if kind == 'zeros':
        logits.zero_()
    if kind in ('steps', 'nan_and_ties'):
        logits = logits.round()
    if kind in ('nan', 'nan_and_ties'):
        # As many NaN pixels as ties: neither may hide the other in a block's totals.
        logits[:, 2, ::2, 3] = float('nan')
    if kind == 'inf':
        logits[:, 3, 1] = float('inf')
        logits[:, 1, 2] = -float('inf')
    for expected, got in zip(
        class_nll_sums(logits, target, impl='plain')[1],
        class_nll_sums(logits, target, impl='fused')[1],
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_nan_stays_with_its_class(block: int) -> None:
    logits, target = random_problem((1, 6, 7), 3, dtype=torch.float32)
    target[0, 0, 0], target[0, 0, 1] = 1, 255
    logits[0, 2, 0, :2] = float('nan')
    sums, _ = class_nll_sums(logits, target, impl='fused')
    assert sums.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize('weight', [float('nan'), float('inf')])
def test_the_weight_of_a_pixel_that_takes_no_part(weight: float) -> None:
    logits, target = random_problem((1, 3, 4), 3, dtype=torch.float32)
    target[0, 0] = 255
    pixel_weight = torch.ones(target.shape)
    pixel_weight[0, 0] = weight
    sums, _, grad = scores(logits, target, torch.ones(3), impl='fused', pixel_weight=pixel_weight)
    assert sums.isfinite().all() and grad.isfinite().all()
    assert not grad[:, :, 0].any()


@pytest.mark.parametrize('impl', ['fused', 'resized'])
def test_keeps_nothing_of_the_size_of_the_logits(impl: str) -> None:
    logits, target = random_problem((2, 32, 40), 19, dtype=torch.float32)
    if impl == 'resized':
        logits = logits[:, :, ::4, ::4].contiguous()
    logits.requires_grad_()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        if impl == 'fused':
            class_nll_sums(logits, target, impl='fused')
        else:
            resized_class_nll_sums(logits, target)
    large = [t for t in saved if t.numel() > target.numel()]
    assert len(large) == 1 and torch.equal(large[0].cpu(), logits)
    # On a GPU it is a copy, of the tests, that the loss is given.
    assert large[0].device != logits.device or large[0].data_ptr() == logits.data_ptr()


def test_the_gradient_of_a_gradient_is_that_of_the_plain_path() -> None:
    logits, target = random_problem((1, 4, 4), 3, dtype=torch.float32)
    weight = torch.linspace(0, 1, 16).view(1, 4, 4)

    def twice(impl: str, size: int) -> torch.Tensor:
        x, y = logits.clone().requires_grad_(), target.repeat_interleave(size, 2)
        if size == 1:
            sums, _ = class_nll_sums(x, y, pixel_weight=weight, impl=impl)
        else:
            sums, _ = resized_class_nll_sums(x, y, impl=impl)
        (grad,) = torch.autograd.grad(sums.square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    for size in (1, 2):
        got, want = twice('fused', size), twice('plain', size)
        assert want.abs().max() > 1
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'width_first'])
def test_large_gradients_keep_the_layout(layout: str) -> None:
    logits, target = random_problem((2, 490, 490), 19, dtype=torch.float32)
    assert logits.nbytes >= 2**25  # from here on the gradient lies in huge pages
    if layout == 'channels_last':
        logits = logits.contiguous(memory_format=torch.channels_last)
    if layout == 'width_first':
        logits = logits.transpose(2, 3).contiguous().transpose(2, 3)
    got, want = (scores(logits, target, torch.arange(19.0), impl=i)[2] for i in ('fused', 'plain'))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    if layout != 'width_first':
        assert got.stride() == logits.stride()
    assert torch.equal(copy.deepcopy(got), got)


@pytest.mark.parametrize('function', ['class_nll_sums', 'resized_class_nll_sums'])
def test_autocast_and_matmul_precision_change_nothing(function: str) -> None:
    logits, target = random_problem((1, 24, 24), 4, dtype=torch.float32)

    def run() -> tuple[Tensor, Tensor]:
        x = (logits if function == 'class_nll_sums' else logits[:, :, ::3, ::3]).detach()
        x.requires_grad_()
        options = dict(impl='fused') if function == 'class_nll_sums' else {}
        sums, _ = getattr(functional, function)(x, target, **options)
        return sums.detach(), torch.autograd.grad(sums.sum(), x)[0]

    expected = run()
    previous = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        with torch.autocast('cpu', dtype=torch.bfloat16):
            got = run()
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision(previous)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_compiles_without_a_graph_break() -> None:
    logits, target = random_problem((1, 8, 8), 3, dtype=torch.float32)
    compiled = torch.compile(class_nll_sums, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(logits, target)[0], class_nll_sums(logits, target)[0])


def test_threads_change_neither_numbers_nor_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = random_problem((2, 40, 40), 5, dtype=torch.float32)
    set_block(monkeypatch, 500)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scores(logits, target, torch.ones(5), impl='fused')
        torch.set_num_threads(3)
        together, again = (scores(logits, target, torch.ones(5), impl='fused') for _ in range(2))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # a thread that starts later
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together[0], again[0]) and torch.equal(together[2], again[2])
    torch.testing.assert_close(together[0], alone[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(together[2], alone[2], rtol=1e-6, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(alone[1], together[1], strict=True))


def test_an_error_in_a_block_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = random_problem((2, 40, 40), 5, dtype=torch.float32)
    set_block(monkeypatch, 500)
    monkeypatch.setattr(cpu_library, 'run', lambda *_: 1 / 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            class_nll_sums(logits, target, impl='fused')
    finally:
        torch.set_num_threads(before)


SIZES = [
    ((4, 5), (32, 40)),  # integer scale
    ((7, 9), (50, 61)),  # non-integer scale
    ((13, 13), (97, 97)),
    ((20, 20), (9, 11)),  # smaller
    ((5, 6), (5, 6)),  # the same
    ((1, 1), (8, 8)),
]


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('low', 'size'), SIZES)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_resized_equals_interpolate(low, size, align_corners, dtype, block) -> None:
    check_resized(low, size, align_corners, dtype)


def check_resized(
    low: tuple[int, int],
    size: tuple[int, int],
    align_corners: bool,
    dtype: torch.dtype,
    num_classes: int = 5,
) -> None:
    """Sums, counts and gradient are those of the logits that F.interpolate resizes."""
    _, target = random_problem((2, *size), num_classes)
    logits = torch.randn(2, num_classes, *low, generator=torch.Generator().manual_seed(1))
    logits = 3 * logits.to(dtype)
    gradient = torch.linspace(0.5, 2, num_classes)

    def run(function) -> tuple[Tensor, list[Tensor], Tensor]:
        x = logits.detach().requires_grad_()
        sums, counts = function(x)
        sums.backward(gradient.to(sums.dtype))
        return sums.detach(), list(counts), x.grad

    def plain(x: Tensor):
        if dtype == torch.bfloat16:
            x = x.float()  # F.interpolate would round its result
        full = F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
        return class_nll_sums(full, target, impl='plain')

    def tiled(x: Tensor):
        return resized_class_nll_sums(x, target, align_corners=align_corners)

    (sums, counts, grad), (sums0, counts0, grad0) = run(tiled), run(plain)
    relative = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(sums, sums0, rtol=relative, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(counts, counts0, strict=True))
    assert grad.dtype == dtype
    tolerance = max(relative, torch.finfo(dtype).eps) * 4 * grad0.abs().max().item()
    torch.testing.assert_close(grad, grad0, rtol=0, atol=tolerance)


def test_769_from_97() -> None:
    logits = torch.randn(1, 19, 97, 97, generator=torch.Generator().manual_seed(0))
    _, target = random_problem((1, 769, 769), 19)
    full = F.interpolate(logits, (769, 769), mode='bilinear', align_corners=False)
    sums0, counts0 = class_nll_sums(full, target, impl='plain')
    sums, counts = resized_class_nll_sums(logits, target)
    torch.testing.assert_close(sums, sums0, rtol=1e-6, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(counts, counts0, strict=True))


@pytest.mark.parametrize('align_corners', [False, True])
def test_resized_gradcheck(align_corners: bool, block: int) -> None:
    _, target = random_problem((1, 7, 9), 3)
    logits = torch.randn(1, 3, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: resized_class_nll_sums(x, target, align_corners=align_corners)[0], logits
    )


def test_resized_is_deterministic() -> None:
    logits = torch.randn(2, 19, 24, 24, generator=torch.Generator().manual_seed(0))
    _, target = random_problem((2, 190, 190), 19)

    def gradient() -> Tensor:
        x = logits.detach().requires_grad_()
        return torch.autograd.grad(resized_class_nll_sums(x, target)[0].sum(), x)[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(3))


def test_resized_refuses_what_does_not_fit() -> None:
    logits, target = torch.zeros(1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'\(N, C, h, w\)'):
        resized_class_nll_sums(logits[0], target)
    with pytest.raises(ValueError, match='same N'):
        resized_class_nll_sums(logits, target.expand(2, -1, -1))
    with pytest.raises(ValueError, match='integer class ids'):
        resized_class_nll_sums(logits, target.float())
    with pytest.raises(ValueError, match='7'):
        resized_class_nll_sums(logits, target + 7)
