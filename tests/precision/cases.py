"""Every path that computes a loss: implementations, the compiled kernel or not, the fused tail."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_recall.losses import ClassWeightedLoss, available_losses

NUM_CLASSES = 5
Scorer = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    name: str
    path: str
    """'loss', of an impl where it has several: 'plain' or 'fused'; 'tail', of a decode head."""
    kernel: bool = True
    """Whether the compiled kernel may be used."""

    def __str__(self) -> str:
        return f'{self.name}-{self.path}' + ('' if self.kernel else '-no_kernel')

    @property
    def scale(self) -> int:
        """Size of the labels over that of the logits."""
        return 4 if self.path == 'tail' else 1


def _cases() -> list[Case]:
    cases = []
    for name, cls in available_losses().items():
        paths = ['fused', 'tail'] if issubclass(cls, ClassWeightedLoss) else ['loss']
        cases += [Case(name, path, kernel) for path in paths for kernel in (True, False)]
        if issubclass(cls, ClassWeightedLoss):
            cases.append(Case(name, 'plain'))
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
    if case.path == 'tail':
        head, samples = head_of(case.name), samples_of(target)
        return lambda logits: head.loss_by_feat(logits, samples)[head.loss_decode.loss_name]
    options = {} if case.path == 'loss' else dict(impl=case.path)
    loss = MODELS.build(dict(loss_config(case.name), **options))
    return lambda logits: loss(logits, target)


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
