"""Every path that computes a loss: implementations, by which kernels or none, the fused tail."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_recall.losses import ClassWeightedLoss, available_losses

NUM_CLASSES = 5
WAYS = ('kernel', 'torch')
Scorer = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    name: str
    path: str
    """'loss', of an impl where it has several: 'plain' or 'fused'; 'tail', of a decode head."""
    by: str = 'kernel'
    """'kernel' of the processor, 'torch' without it, or 'triton', the kernels of a GPU."""

    def __str__(self) -> str:
        return f'{self.name}-{self.path}-{self.by}'

    @property
    def scale(self) -> int:
        """Size of the labels over that of the logits."""
        return 4 if self.path == 'tail' else 1


def _cases() -> list[Case]:
    cases = []
    for name, cls in available_losses().items():
        if issubclass(cls, ClassWeightedLoss):
            cases += [Case(name, path) for path in ('fused', 'tail')]
            # Interpreted, the tail takes minutes for what these tests ask: tests/functional.
            cases += [Case(name, 'fused', 'triton'), Case(name, 'plain')]
        else:
            cases += [Case(name, 'loss', by) for by in WAYS]
    return cases


CASES = _cases()


def loss_config(name: str) -> dict:
    """The loss with its defaults, and counts where it needs them."""
    try:
        available_losses()[name]()
    except ValueError:
        return dict(type=name, class_counts=list(range(1, NUM_CLASSES + 1)))
    return dict(type=name)


def head_of(name: str, head: str = 'FusedFCNHead'):
    return MODELS.build(
        dict(
            type=head,
            in_channels=4,
            channels=4,
            num_convs=1,
            num_classes=NUM_CLASSES,
            norm_cfg=dict(type='BN'),
            loss_decode=loss_config(name),
        )
    )


def samples_of(target: Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=y.unsqueeze(0))) for y in target]


def scorer(case: Case, target: Tensor) -> Scorer:
    """The loss of a case as a function of the logits alone."""
    device = 'cuda' if case.by == 'triton' and torch.cuda.is_available() else 'cpu'
    target = target.to(device)
    if case.path == 'tail':
        head, samples = head_of(case.name).to(device), samples_of(target)
        name = head.loss_decode.loss_name
        return lambda logits: head.loss_by_feat(logits.to(device), samples)[name].cpu()
    options = {} if case.path == 'loss' else dict(impl=case.path)
    loss = MODELS.build(dict(loss_config(case.name), **options)).to(device)
    return lambda logits: forget(loss)(logits.to(device), target).cpu()


def forget(loss: nn.Module) -> nn.Module:
    """The loss as before its first batch."""
    for name in loss.running_names:
        setattr(loss, name, None)
    return loss


def problem(
    case: Case, size: tuple[int, int] = (12, 14), seed: int = 0, num_images: int = 2
) -> tuple[Tensor, Tensor]:
    """Logits (N, C, h, w), float32, and labels, of which one class is absent and some ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num_images, NUM_CLASSES, *size, generator=generator)
    height, width = (case.scale * s for s in size)
    target = torch.randint(NUM_CLASSES - 1, (num_images, height, width), generator=generator)
    target[:, 0] = 255
    return logits, target


def value_and_gradient(score: Scorer, logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = score(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]
