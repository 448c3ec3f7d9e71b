"""Soft IoU averaged over images or classes first: what each average is, and its edges."""

from __future__ import annotations

import copy

import pytest
import torch

from mmseg_recall.functional.engines import cpu_library
from mmseg_recall.losses import SoftIoULoss
from mmseg_recall.losses.soft_tversky import SoftTverskyLoss
from tests.losses.test_properties import random_batch

every_loss = pytest.mark.parametrize('cls', [SoftIoULoss, SoftTverskyLoss])
every_average = pytest.mark.parametrize('average', ['image', 'class'])


def test_by_hand() -> None:
    """Uniform logits: in image 0 the IoU are 1/3 and 1/3, in image 1 class 0 has 1/2."""
    target = torch.tensor([[0, 1], [0, 0]])
    logits = torch.zeros(2, 2, 2)
    image = SoftIoULoss(average='image')(logits, target)
    torch.testing.assert_close(image, torch.tensor(1 - (1 / 3 + 1 / 2) / 2))
    of_class = SoftIoULoss(average='class')(logits, target)
    torch.testing.assert_close(of_class, torch.tensor(1 - ((1 / 3 + 1 / 2) / 2 + 1 / 3) / 2))


@every_loss
@every_average
def test_of_one_image_all_averages_are_one(cls: type, average: str) -> None:
    batch = random_batch()
    one = batch.logits[:1], batch.target[:1]
    torch.testing.assert_close(cls(average=average)(*one), cls()(*one))


@every_loss
def test_image_is_the_mean_of_the_images(cls: type) -> None:
    batch = random_batch()
    images = zip(batch.logits.split(1), batch.target.split(1), strict=True)
    expected = torch.stack([cls()(*image) for image in images]).mean()
    torch.testing.assert_close(cls(average='image')(batch.logits, batch.target), expected)


@every_loss
@every_average
@pytest.mark.parametrize('kernel', [True, False])
def test_an_image_without_a_valid_pixel_takes_no_part(
    cls: type, average: str, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(cpu_library, 'LIBRARY', None)
    batch, loss = random_batch(), cls(average=average)
    batch.target[1] = 255
    value = loss(batch.logits, batch.target)
    value.backward()
    assert value == loss(batch.logits[:1], batch.target[:1])
    assert batch.logits.grad[0].any() and not batch.logits.grad[1].any()
    batch.target[0], batch.logits.grad = 255, None
    value = loss(batch.logits, batch.target)
    value.backward()
    assert value == 0 and not batch.logits.grad.any()
    nothing = loss(batch.logits[:0], batch.target[:0])
    nothing.backward()
    assert nothing == 0


@every_average
def test_compiles_without_a_graph_break(average: str) -> None:
    batch, loss = random_batch(), SoftIoULoss(average=average)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(loss), fullgraph=True, backend='aot_eager')
    for part in (slice(None), slice(1)):  # the second makes torch compile for any number of images
        logits, target = batch.logits[part], batch.target[part]
        value, expected = compiled(logits, target), loss(logits, target)
        torch.testing.assert_close(value, expected)
        gradient, want = (torch.autograd.grad(v, batch.logits)[0] for v in (value, expected))
        torch.testing.assert_close(gradient, want)
