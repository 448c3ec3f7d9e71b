"""Mixed precision: losses in float32, float16 gradients under a loss scale, overflow skipped."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import amp
from torch import Tensor, nn

from .cases import NUM_CLASSES, Case, head_of, problem, samples_of, scorer, value_and_gradient

INITIAL_SCALE = 2.0**16
"""What torch.amp.GradScaler begins with."""

low_precision = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)


def rounded(want: Tensor, dtype: torch.dtype, smallest: float) -> Tensor:
    """How far from ``want`` a gradient of that type may be, which float32 has computed."""
    return torch.finfo(dtype).eps * want.abs() + 1e-6 * want.abs().max() + smallest


@low_precision
@pytest.mark.parametrize('logits_in', ['low precision', 'float32'])
def test_computes_in_float32(case: Case, dtype: torch.dtype, logits_in: str) -> None:
    logits, target = problem(case)
    logits = logits.to(dtype)
    score = scorer(case, target)
    expected, want = value_and_gradient(score, logits.float())
    if logits_in == 'float32':
        logits = logits.float()
    with torch.autocast('cpu', dtype=dtype):
        value, gradient = value_and_gradient(score, logits)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert gradient.dtype == logits.dtype
    smallest = torch.finfo(logits.dtype).smallest_normal
    assert torch.all((gradient - want).abs() <= rounded(want, logits.dtype, smallest))


def extreme(logits: Tensor) -> Tensor:
    """Up to +-60,000 in float16, all of its range but for the last tenth."""
    return (60000 * logits / logits.abs().max()).half()


@pytest.mark.parametrize('size', ['ordinary', 'up to 60,000', '60,000 or -60,000'])
def test_float16_gradients_keep_their_digits_under_a_loss_scale(case: Case, size: str) -> None:
    # So many pixels that without the scale most of a gradient is below what float16 holds in full.
    logits, target = problem(case, size=(96, 98))
    logits = dict(
        [
            ('ordinary', logits.half()),
            ('up to 60,000', extreme(logits)),
            ('60,000 or -60,000', extreme(logits.sign())),
        ]
    )[size]
    score = scorer(case, target)
    expected, want = value_and_gradient(score, logits.float())
    assert want.isfinite().all()
    if size == 'ordinary':
        unscaled = value_and_gradient(score, logits)[1].float()
        assert not torch.all((unscaled - want).abs() <= rounded(want, torch.float16, 0))

    parameter = nn.Parameter(logits.float())
    scaler = torch.amp.GradScaler('cpu', init_scale=INITIAL_SCALE)
    with torch.autocast('cpu', dtype=torch.float16):
        value = score(parameter.half())
    scaler.scale(value).backward()
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler.unscale_(optimizer)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=0)
    smallest = torch.finfo(torch.float16).smallest_normal / INITIAL_SCALE
    error = (parameter.grad - want).abs()
    assert torch.all(error <= rounded(want, torch.float16, smallest))
    before = parameter.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == INITIAL_SCALE
    assert torch.equal(before - parameter.grad, parameter.detach())


def test_a_step_that_overflows_is_skipped(case: Case) -> None:
    logits, target = problem(case)
    torch.manual_seed(0)
    images = torch.randn(len(logits), 3, *logits.shape[2:])
    model = nn.Conv2d(3, NUM_CLASSES, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**40, backoff_factor=2.0**-8)
    score, skipped, taken = scorer(case, target), 0, 0
    for _ in range(8):
        before, scale = model.weight.detach().clone(), scaler.get_scale()
        with torch.autocast('cpu', dtype=torch.float16):
            outputs = model(images)
            assert outputs.dtype == torch.float16
            value = score(outputs)
        assert value.isfinite()
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            assert torch.equal(model.weight, before)
            skipped += 1
        else:
            assert model.weight.isfinite().all() and not torch.equal(model.weight, before)
            taken += 1
    assert skipped and taken


def test_mmengine_has_no_mixed_precision_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``tools/train.py --amp`` builds."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: False)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(AssertionError, match='only available training'):
        AmpOptimWrapper(optimizer=optimizer)


def test_a_head_under_mmengines_wrapper(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """AmpOptimWrapper, let onto the CPU, where it takes bfloat16 only."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    scaler = partial(torch.amp.GradScaler, device='cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
    torch.manual_seed(0)
    head = head_of(case.name, 'FusedFCNHead' if case.path == 'tail' else 'FCNHead').train()
    _, target = problem(case)
    features = [torch.randn(2, 4, 12, 14)]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16')
    before = head.conv_seg.weight.detach().clone()
    with wrapper.optim_context(head):
        losses = head.loss(features, samples_of(target), train_cfg={})
    value = losses[head.loss_decode.loss_name]
    assert value.dtype == torch.float32 and value.isfinite()
    wrapper.update_params(value)
    assert head.conv_seg.weight.isfinite().all()
    assert not torch.equal(head.conv_seg.weight, before)
    assert wrapper.loss_scaler.get_scale() == INITIAL_SCALE
