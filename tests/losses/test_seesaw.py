"""SeesawLoss: what it remembers of the batches before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg_recall.losses.seesaw import SeesawLoss


def batch(*labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, 2, len(labels)), torch.tensor([labels])


def test_without_factors_it_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 4, 9), torch.randint(3, (2, 9))
    value = SeesawLoss(p=0, q=0)(logits, target)
    torch.testing.assert_close(value, F.cross_entropy(logits, target))


def test_pixels_are_counted_in_training_and_kept_in_the_checkpoint() -> None:
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
    other = torch.zeros(1, 3, 1), torch.tensor([[0]])
    with pytest.warns(UserWarning, match='2 classes and the logits have 3') as said:
        loss(*other)
        assert loss.pixels.tolist() == [4, 2]  # evaluation counts nothing
        assert torch.equal(loss.train()(*other), SeesawLoss(p=1.0)(*other))
    assert loss.pixels.tolist() == [1, 0, 0]
    assert len(said) == 2


def test_a_class_not_yet_seen_counts_one_pixel() -> None:
    """So that a model which predicts it all the same can unlearn it."""
    logits = torch.zeros(1, 3, 4)
    logits[:, 2] = 1.0
    logits.requires_grad_()
    SeesawLoss(p=1.0, q=0.0)(logits, torch.tensor([[0, 0, 0, 1]])).backward()
    e = torch.tensor(1.0).exp()
    # Of class 0, three pixels: z' = (0, log(1/3), 1 + log(1/3)); of class 1, one: (0, 0, 1).
    torch.testing.assert_close(logits.grad[0, 2, 0], e / 3 / (1 + 1 / 3 + e / 3) / 4)
    torch.testing.assert_close(logits.grad[0, 2, 3], e / (2 + e) / 4)


def test_compensation_punishes_a_pixel_taken_for_another_class() -> None:
    logits = torch.tensor([[[0.0], [1.0]]])
    value = SeesawLoss(p=0, q=2)(logits, torch.tensor([[0]]))
    torch.testing.assert_close(value, (1 + torch.tensor(3.0).exp()).log())  # e^1 (e^1)^2
