"""SeesawLoss: what it remembers of the batches before."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmseg_recall.losses import base
from mmseg_recall.losses.seesaw import SeesawLoss


def batch(*labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, 2, len(labels)), torch.tensor([labels])


def test_without_factors_it_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 4, 9), torch.randint(3, (2, 9))
    value = SeesawLoss(p=0, q=0)(logits, target)
    torch.testing.assert_close(value, F.cross_entropy(logits, target))


def test_pixels_are_counted_in_training_and_kept_in_the_checkpoint(monkeypatch) -> None:
    loss = SeesawLoss(p=1.0)
    loss(*batch(0, 0, 0, 255, 1))
    loss(*batch(0, 1))
    loss.eval()(*batch(1, 1, 1))
    assert loss.pixels.tolist() == [4, 2]
    resumed = SeesawLoss(p=1.0)
    resumed.load_state_dict(loss.state_dict())
    # Of 4 and 2 pixels: 5 and 2 with this one, so that class 1 counts for 2 / 5.
    torch.testing.assert_close(resumed(*batch(0)), torch.tensor(1.4).log())
    assert loss.pixels.tolist() == [4, 2]
    said: list[str] = []
    monkeypatch.setattr(base, 'print_log', lambda message, **_: said.append(message))
    other = torch.zeros(1, 3, 1), torch.tensor([[0]])
    loss(*other)
    assert loss.pixels.tolist() == [4, 2]  # evaluation counts nothing
    assert torch.equal(loss.train()(*other), SeesawLoss(p=1.0)(*other))
    assert loss.pixels.tolist() == [1, 0, 0]
    assert len(said) == 2 and '2 classes and the logits have 3' in said[0]


def test_a_class_not_yet_seen_is_not_punished() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    SeesawLoss()(logits, torch.tensor([[0, 1, 0, 1, 0]])).backward()
    assert not logits.grad[:, 2].any()
    assert logits.grad[:, :2].all()


def test_compensation_punishes_a_pixel_taken_for_another_class() -> None:
    logits = torch.tensor([[[0.0], [1.0]]])
    value = SeesawLoss(p=0, q=2)(logits, torch.tensor([[0]]))
    torch.testing.assert_close(value, (1 + torch.tensor(3.0).exp()).log())  # e^1 (e^1)^2
