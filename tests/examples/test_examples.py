"""The examples run, and through each host the loss is the plain one, its gradient included."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_recall import RecallLoss
from tests.tools.run import ROOT, run

FOLDER = ROOT / 'examples'
Step = Callable[[Any, Tensor, Tensor], Tensor]


def step_of_loop(host: Any, images: Tensor, target: Tensor) -> Tensor:
    return host.loss_of(host.build_model(), images, target)


STEPS: dict[str, Step] = {
    'plain_pytorch': step_of_loop,
    'lightning_module': lambda host, *batch: host.Segmenter().training_step(batch, 0),
    'segmentation_models_pytorch_unet': step_of_loop,
    'monai_unet': lambda host, x, y: step_of_loop(host, x, y.unsqueeze(1)),
    'hugging_face_segformer': step_of_loop,
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob('*.py')} == {*STEPS, 'shapes'}


@pytest.mark.parametrize('name', STEPS)
def test_runs_and_prints_recall(name: str, tmp_path: Path) -> None:
    lines = run(FOLDER / f'{name}.py', cwd=tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    *recalls, loss = [line for line in lines if line.startswith(('recall of', 'loss:'))]
    assert [line.split(':')[0] for line in recalls] == [
        'recall of background',
        'recall of disc',
        'recall of square',
    ]
    # What it has learned in these steps: more than one class.
    assert sum(float(line.split()[-1]) > 0.2 for line in recalls) >= 2
    ours, functions = loss.removeprefix('loss: ').split(', by the functions: ')
    assert ours == functions


def recall_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. 5 of the paper over N, in plain torch."""
    valid = target != 255
    nll = F.cross_entropy(logits, target, ignore_index=255, reduction='none')
    hits = (logits.argmax(1) == target).double()
    weight = torch.zeros_like(nll)
    for c in target[valid].unique():
        weight[target == c] = 1 - hits[target == c].mean()
    return (weight * nll).sum() / valid.sum()


@pytest.mark.parametrize('name', STEPS)
def test_loss_and_gradient_through_the_host_are_the_plain_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    host = importlib.import_module(name)
    images, target = importlib.import_module('shapes').batch(0)
    for module in ('shapes', name):
        monkeypatch.delitem(sys.modules, module)
    target[:, :8] = 255
    torch.manual_seed(0)
    given: list[Tensor] = []

    def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, RecallLoss):
            given[:] = args

    hook = nn.modules.module.register_module_forward_pre_hook(remember)
    try:
        loss = STEPS[name](host, images, target)
    finally:
        hook.remove()
    logits, labels = given
    assert torch.equal(labels, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    leaf = logits.detach().double().requires_grad_()
    want = recall_loss(leaf, target)
    want.backward()
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    assert (gradient - leaf.grad).abs().max() <= 1e-6 * leaf.grad.abs().max()
    assert leaf.grad.any()
