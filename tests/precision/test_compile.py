"""torch.compile: one graph, and the numbers of eager mode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from traceback import FrameSummary
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from packaging.version import Version
from torch import Tensor, nn
from torch._dynamo.backends.debugging import ExplainOutput

from mmseg_recall.losses import ClassWeightedLoss, available_losses
from mmseg_recall.models import fuse_tails, swap_loss
from tests.tools.run import ROOT

from .cases import (
    NUM_CLASSES,
    Case,
    forget,
    head_of,
    loss_config,
    problem,
    samples_of,
    value_and_gradient,
)

LOSSES = available_losses()
WEIGHTED = [name for name, cls in LOSSES.items() if issubclass(cls, ClassWeightedLoss)]
CASES = [
    *(Case(name, 'loss') for name in LOSSES if name not in WEIGHTED),
    *(Case(name, impl) for name, impl in product(WEIGHTED, ('plain', 'fused'))),
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch._dynamo.reset()


def loss_of(case: Case, **options: Any) -> nn.Module:
    if case.path != 'loss':
        options['impl'] = case.path
    return MODELS.build(dict(loss_config(case.name), **options))


def compiled(function: Callable[..., Any], backend: str = 'aot_eager') -> Any:
    # 'aot_eager' traces forward and backward like the default backend, without its C++ build.
    return torch.compile(function, fullgraph=True, backend=backend)


def assert_alike(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> None:
    for got, want in zip(one, other, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES, ids=str)
def test_one_graph_whatever_the_size_and_type(case: Case) -> None:
    """The second size makes torch compile for all of them."""
    loss = loss_of(case)
    fast = compiled(copy.deepcopy(loss))
    for size, dtype in [((6, 7), torch.float32), ((9, 8), torch.float32), ((6, 7), torch.float16)]:
        logits, target = problem(case, size)
        logits = logits.to(dtype)
        got, want = (value_and_gradient(partial(f, target=target), logits) for f in (fast, loss))
        assert got[0].dtype == torch.float32 and got[1].dtype == dtype
        torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=0)
        rounding = 2 * torch.finfo(dtype).eps * want[1].abs() + 1e-6 * want[1].abs().max()
        smallest = torch.finfo(dtype).smallest_normal
        assert torch.all((got[1].float() - want[1].float()).abs() <= rounding + smallest)


@pytest.mark.parametrize('impl', ['plain', 'fused'])
def test_running_recall_and_pixel_weights(impl: str) -> None:
    case = Case('RecallLoss', impl)
    loss = loss_of(case, momentum=0.9)
    fast = compiled(copy.deepcopy(loss))
    for seed in range(3):
        logits, target = problem(case, seed=seed)
        rest = dict(target=target, weight=torch.rand(target.shape))
        got, want = (value_and_gradient(partial(f, **rest), logits) for f in (fast, loss))
        assert_alike(got, want)
    assert torch.equal(fast.running_recall.nan_to_num(-1), loss.running_recall.nan_to_num(-1))
    assert all(torch.equal(a, b) for a, b in zip(fast.last_counts, loss.last_counts, strict=True))


@pytest.mark.parametrize(
    ('loss', 'name'),
    [('RecallLoss', 'loss_recall'), ('LovaszSoftmaxLoss', 'loss_lovasz_softmax')],
)
def test_the_fused_tail_is_one_graph(loss: str, name: str) -> None:
    head = head_of(loss)
    logits, target = problem(Case(loss, 'tail'))
    logits, samples = logits.requires_grad_(), samples_of(target)
    expected, losses = (
        f(logits, samples) for f in (head.loss_by_feat, compiled(head.loss_by_feat))
    )
    got, want = ((v[name], *torch.autograd.grad(v[name], logits)) for v in (losses, expected))
    assert_alike(got, want)
    assert torch.equal(losses['acc_seg'], expected['acc_seg'])


def test_the_stock_tail_is_broken_by_mmsegs_accuracy_only() -> None:
    head = head_of('RecallLoss', 'FCNHead')
    logits, target = problem(Case('RecallLoss', 'tail'))
    found = torch._dynamo.explain(head.loss_by_feat)(logits, samples_of(target))
    places = {(frame.name, Path(frame.filename).name) for frame in last_frames(found)}
    assert places == {('accuracy', 'accuracy.py')}


def last_frames(found: ExplainOutput) -> list[FrameSummary]:
    """Where the graph breaks."""
    return [reason.user_stack[-1] for reason in found.break_reasons]


def small_model() -> nn.Module:
    """DeepLabV3 on ResNet-18, of a few channels, with fused tails."""
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'deeplabv3_r18_small.py')
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.decode_head.update(
        in_channels=64, channels=8, num_classes=NUM_CLASSES, dropout_ratio=0
    )
    cfg.imbalance_loss = dict(type='RecallLoss')
    torch.manual_seed(0)
    return MODELS.build(fuse_tails(swap_loss(cfg)).model).train()


@pytest.mark.slow
def test_a_whole_model_is_one_graph_from_images_to_losses() -> None:
    model = small_model()
    images, target = torch.randn(2, 3, 64, 64), torch.randint(NUM_CLASSES, (2, 64, 64))
    samples = samples_of(target)
    expected = model.loss(images, samples)
    expected['decode.loss_recall'].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    losses = compiled(model.loss, backend='eager')(images, samples)
    losses['decode.loss_recall'].backward()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


@pytest.mark.slow
def test_a_training_step_is_broken_by_the_stack_only() -> None:
    """What ``compile=True`` in a config compiles: on torch 2.4 in more pieces."""
    model = small_model()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    inputs = list(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8))
    samples = samples_of(torch.randint(NUM_CLASSES, (2, 64, 64)))
    found = torch._dynamo.explain(model.train_step)(
        dict(inputs=inputs, data_samples=samples), optim_wrapper=optimizer
    )
    places = {(frame.name, Path(frame.filename).name) for frame in last_frames(found)}
    expected = {('backward', 'optimizer_wrapper.py')}
    if Version(torch.__version__) < Version('2.5'):
        expected |= {('stack_batch', 'misc.py'), ('__setattr__', 'pixel_data.py')}
    assert places == expected


@pytest.mark.slow
def test_the_default_backend_gives_the_same_numbers() -> None:
    """All losses in one graph, which torch turns into C++ (inductor)."""
    losses = [loss_of(Case(name, 'loss')) for name in LOSSES]
    logits, target = problem(CASES[0])

    def total(logits: Tensor) -> Tensor:
        return torch.stack([loss(logits, target) for loss in losses])

    values = compiled(total, backend='inductor')(logits.requires_grad_())
    for loss in losses:
        forget(loss)
    expected = total(logits)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=0)
    (got,), (want,) = (torch.autograd.grad(v.sum(), logits) for v in (values, expected))
    assert_alike((got,), (want,))
