"""RecallLoss with a SegFormer of Hugging Face transformers, from a config with random weights.

Needs: pip install transformers
Run:   python examples/hugging_face_segformer.py
"""

import torch
import torch.nn.functional as F
from shapes import CLASSES, batch, print_recall
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from mmseg_recall import RecallLoss

criterion = RecallLoss()


def build_model() -> nn.Module:
    config = SegformerConfig(
        num_labels=len(CLASSES), hidden_sizes=[16, 32, 64, 64], num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=64,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    # Without labels the model computes no loss of its own; its logits are at stride 4.
    logits = model(pixel_values=images).logits
    return F.interpolate(logits, images.shape[2:], mode='bilinear', align_corners=False)


def loss_of(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return criterion(logits_of(model, images), target)


def main() -> None:
    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(40):
        loss = loss_of(model, *batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    images, target = batch(1000)
    with torch.no_grad():
        print_recall(logits_of(model, images), target, loss_of(model, images, target))


if __name__ == '__main__':
    main()
