"""What importing the package registers, and the losses as mmpretrain's heads call them."""

from __future__ import annotations

import re
from pathlib import Path

import mmpretrain
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import HOOKS, MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

import mmseg_recall.classification
from mmseg_recall.functional.engines import cpu_library
from mmseg_recall.losses import ClassCountsLoss, ClassWeightedLoss, RecallLoss, available_losses
from mmseg_recall.stack import stock_script

SPECIES = 8142
BATCH = 128
# mmpretrain's own SeesawLoss keeps its name.
LOSSES = {
    name: cls
    for name, cls in available_losses().items()
    if not hasattr(mmpretrain.models.losses, name)
}
CASES = [
    (name, impl)
    for name, cls in LOSSES.items()
    for impl in (('plain', 'fused') if issubclass(cls, ClassWeightedLoss) else (None,))
]


def config(name: str, impl: str | None, num_classes: int) -> dict:
    needs_counts = issubclass(LOSSES[name], ClassCountsLoss)
    return dict(
        type=name,
        **(dict(impl=impl) if impl else {}),
        **(dict(class_counts=list(range(1, num_classes + 1))) if needs_counts else {}),
    )


def samples(target: Tensor) -> list[DataSample]:
    return [DataSample().set_gt_label(y) for y in target]


def batch() -> tuple[Tensor, Tensor]:
    """iNaturalist's classes and the paper's batch; 255 is a class, and one class has 5 samples."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(SPECIES, (BATCH,), generator=generator)
    target[:2] = 255
    target[2:7] = 4000
    logits = torch.randn(BATCH, SPECIES, generator=generator)
    logits[torch.arange(0, BATCH, 2), target[::2]] += 9.0  # every other sample is a hit
    return logits.requires_grad_(), target


def head_loss(loss: dict, logits: Tensor, target: Tensor) -> Tensor:
    """The loss that LinearClsHead logs for these logits."""
    head = LinearClsHead(num_classes=logits.shape[1], in_channels=1, loss=loss)
    head.fc = torch.nn.Identity()
    return head.loss((logits,), samples(target))['loss']


def test_everything_is_registered_under_its_class_name() -> None:
    for name, cls in LOSSES.items():
        assert type(MODELS.build(config(name, None, 3))) is cls
    for name in ('SDNHead', 'LDAMLoss', 'CosineClsHead', 'TauNormalizedHead', 'LWSHead'):
        assert MODELS.get(name).__name__ == name
    assert HOOKS.get('DeferredReweightingHook') is not None


@pytest.mark.parametrize(('name', 'impl'), CASES)
def test_a_linear_head_takes_every_loss(name: str, impl: str | None) -> None:
    logits, target = batch()
    value = head_loss(config(name, impl, SPECIES), logits, target)
    value.backward()
    assert value.isfinite() and value > 0
    assert logits.grad.isfinite().all()
    # Nothing is left out, above all not the samples of class 255.
    missing = head_loss(config(name, impl, SPECIES), logits[2:], target[2:])
    assert missing != value


@pytest.mark.parametrize('impl', ['plain', 'fused', 'fused, no kernel'])
def test_recall_loss_of_a_few_samples_of_thousands_of_classes(impl: str, monkeypatch) -> None:
    if impl == 'fused, no kernel':
        monkeypatch.setattr(cpu_library, 'LIBRARY', None)
    logits, target = batch()
    value = head_loss(config('RecallLoss', impl[:5], SPECIES), logits, target)
    (gradient,) = torch.autograd.grad(value, logits)

    exact = logits.detach().double().requires_grad_()
    predicted = exact.argmax(1).tolist()
    labels = target.tolist()
    hits = {
        c: sum(p == y == c for p, y in zip(predicted, labels, strict=True)) for c in set(labels)
    }
    weight = torch.tensor([1 - hits[c] / labels.count(c) for c in labels]).double()
    assert 0 < weight.mean() < 1
    expected = (weight * F.cross_entropy(exact, target, reduction='none')).mean()
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ('options', 'of_a_hit'), [({}, 0.0), (dict(smoothing=1.0), 0.5), (dict(momentum=0.9), 0.0)]
)
def test_samples_alone_in_their_class_weigh_by_hit_or_miss(options: dict, of_a_hit: float) -> None:
    logits, _ = batch()
    target = torch.arange(BATCH)
    loss = RecallLoss(ignore_index=None, **options)
    value = loss(logits, target)
    hit = logits.argmax(1) == target
    each = F.cross_entropy(logits.double(), target, reduction='none')
    expected = (torch.where(hit, of_a_hit, 1.0) * each).mean()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)


def test_momentum_makes_the_weight_follow_the_recall_of_single_samples() -> None:
    """Smoothing by one sample then halves the range: 1 - R / 2."""
    hits = torch.rand(2000, generator=torch.Generator().manual_seed(0)) < 0.6
    target = torch.tensor([0])
    weights = {}
    for smoothing in (0.0, 1.0):
        loss = RecallLoss(momentum=0.9, smoothing=smoothing)
        seen = []
        for hit in hits.tolist():
            loss(torch.tensor([[1.0, 0.0] if hit else [0.0, 1.0]]), target)
            seen.append(loss.last_weight[0])
        weights[smoothing] = torch.stack(seen[100:])
    assert weights[0.0].mean().item() == pytest.approx(0.4, abs=0.03)
    assert weights[0.0].std() < 0.15 < 0.49  # 0.49 is that of a weight of 0 or 1
    torch.testing.assert_close(weights[1.0], 0.5 + weights[0.0] / 2)


def test_the_default_ignore_index_is_refused_where_it_is_a_class() -> None:
    logits, target = batch()
    with pytest.raises(ValueError, match='255, which is one of the 8142 classes'):
        RecallLoss()(logits, target)
    RecallLoss()(logits[:, :255], target.clamp_max(254))


@pytest.mark.parametrize('name', [*LOSSES, 'LDAMLoss'])
def test_soft_labels_are_refused(name: str) -> None:
    loss = config(name, None, 3) if name != 'LDAMLoss' else dict(type=name, class_counts=[1, 2, 3])
    head = LinearClsHead(num_classes=3, in_channels=2, loss=loss)
    mixed = [DataSample().set_gt_score(torch.tensor([0.7, 0.3, 0.0])) for _ in range(4)]
    with pytest.raises(ValueError, match=r'\(4, 3\).*Mixup'):
        head.loss((torch.zeros(4, 2),), mixed)


def test_segmentation_imports_nothing_of_it() -> None:
    package = Path(mmseg_recall.__path__[0])
    statement = re.compile(r'^\s*(from|import) (mmpretrain|\S*\.classification)\b', re.M)
    sources = [
        p for p in package.rglob('*.py') if 'classification' not in p.relative_to(package).parts
    ]
    assert len(sources) > 30
    assert not [p for p in sources if statement.search(p.read_text())]


def test_finds_the_scripts_of_mmpretrain() -> None:
    for name in ('train.py', 'test.py'):
        assert Path(mmpretrain.__path__[0]) in stock_script(name, 'mmpretrain').parents
