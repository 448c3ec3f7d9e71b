"""RecallLoss in a plain PyTorch loop: only torch and mmseg_recall are installed.

Run: python examples/plain_pytorch.py
"""

import torch
from shapes import CLASSES, batch, print_recall
from torch import Tensor, nn

from mmseg_recall import RecallLoss

criterion = RecallLoss()


def build_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, len(CLASSES), 3, padding=1),
    )


def loss_of(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return criterion(model(images), target)  # logits (N, C, H, W), class ids (N, H, W)


def main() -> None:
    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(30):
        loss = loss_of(model, *batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, target = batch(1000)
    with torch.no_grad():
        print_recall(model(images), target, loss_of(model, images, target))


if __name__ == '__main__':
    main()
