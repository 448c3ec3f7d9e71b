"""RecallLoss with a model of segmentation_models.pytorch, in place of its DiceLoss.

Needs: pip install segmentation-models-pytorch
Run:   python examples/segmentation_models_pytorch_unet.py
"""

import segmentation_models_pytorch as smp
import torch
from shapes import CLASSES, batch, print_recall
from torch import Tensor, nn

from mmseg_recall import RecallLoss

criterion = RecallLoss()


def build_model() -> nn.Module:
    # No activation: the loss takes logits. classes=1 is two classes, labelled 0 and 1.
    return smp.Unet('resnet18', encoder_weights=None, classes=len(CLASSES), activation=None)


def loss_of(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return criterion(model(images), target)


def main() -> None:
    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(10):
        loss = loss_of(model, *batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, target = batch(1000)
    with torch.no_grad():
        print_recall(model(images), target, loss_of(model, images, target))


if __name__ == '__main__':
    main()
