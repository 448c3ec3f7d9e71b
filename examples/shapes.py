"""What the examples train on: discs and small squares on a background, drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor

from mmseg_recall.functional import class_nll_sums, recall, recall_weight, weighted_mean

CLASSES = ('background', 'disc', 'square')


def batch(seed: int, num_images: int = 4, size: int = 64) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and class ids (N, H, W); nearly all pixels are background."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(num_images, size, size, dtype=torch.long)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
    for image in target:
        (y, x), (top, left) = torch.randint(10, size - 10, (2, 2), generator=generator).tolist()
        image[(row - y) ** 2 + (column - x) ** 2 < 64] = 1
        image[top : top + 5, left : left + 5] = 2
    colours = torch.tensor([[0.1, 0.2, 0.1], [0.6, 0.3, 0.2], [0.3, 0.4, 0.7]])
    noise = 0.1 * torch.randn(num_images, 3, size, size, generator=generator)
    return colours[target].movedim(-1, 1) + noise, target


def print_recall(logits: Tensor, target: Tensor, loss: Tensor) -> None:
    """Recall of each class, and the loss beside what the functions of the package give."""
    sums, counts = class_nll_sums(logits, target)
    expected = weighted_mean(sums, recall_weight(counts), counts.pixels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for name, value in zip(CLASSES, recall(counts).tolist(), strict=True):
        print(f'recall of {name}: {value:.2f}')
    print(f'loss: {loss.item():.4f}, by the functions: {expected.item():.4f}')
