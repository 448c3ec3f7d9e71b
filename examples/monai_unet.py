"""RecallLoss with a 2-D network of MONAI, whose labels have a channel.

Needs: pip install monai
Run:   python examples/monai_unet.py
"""

import torch
from monai.networks.nets import UNet
from shapes import CLASSES, batch, print_recall
from torch import Tensor, nn

from mmseg_recall import RecallLoss

criterion = RecallLoss()


def build_model() -> nn.Module:
    return UNet(
        spatial_dims=2, in_channels=3, out_channels=len(CLASSES), channels=(8, 16, 32),
        strides=(2, 2),
    )  # fmt: skip


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return criterion(model(images), labels.squeeze(1))  # not one-hot: class ids (N, 1, H, W)


def main() -> None:
    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(20):
        images, target = batch(step)
        loss = loss_of(model, images, target.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, target = batch(1000)
    with torch.no_grad():
        print_recall(model(images), target, loss_of(model, images, target.unsqueeze(1)))


if __name__ == '__main__':
    main()
