"""BBN equals a float64 computation of its loss, mixing and prediction; draws are reversed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import Dataset

from mmseg_recall.classification.bbn import (
    BBNHead,
    BilateralBatchSampler,
    reversed_sample_weight,
)

COUNTS = [12, 4, 1]
LABELS = np.repeat(np.arange(3), COUNTS)


class Images(Dataset):
    """What the sampler asks of an mmpretrain dataset, without files."""

    def __init__(self) -> None:
        self.metainfo = dict(classes=('a', 'b', 'c'))

    def get_gt_labels(self) -> np.ndarray:
        return LABELS

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> dict:
        label = int(LABELS[index])
        return dict(inputs=torch.eye(17)[index], data_samples=DataSample().set_gt_label(label))


class Classifier(BaseModel):
    """A head, and what it was given at each iteration."""

    def __init__(self, head: LinearClsHead) -> None:
        super().__init__()
        self.head = head
        self.seen: list[float | None] = []

    def forward(self, inputs: list[Tensor], data_samples: list[DataSample], mode: str) -> dict:
        self.seen.append(self.head.alpha)
        return self.head.loss((torch.stack(inputs),), data_samples)


def head_and_batch() -> tuple[BBNHead, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    head = BBNHead(num_classes=3, in_channels=5)
    x = torch.randn(8, 5).numpy()
    return head, x, np.array([0, 0, 1, 0, 2, 1, 2, 0])


def branch(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    weight, bias = (p.detach().numpy().astype(float) for p in (layer.weight, layer.bias))
    return x + np.maximum(x @ weight.T + bias, 0)


def mixture(head: BBNHead, x_c: np.ndarray, x_r: np.ndarray, alpha: float) -> np.ndarray:
    """W_c (a f_c) + W_r ((1 - a) f_r) + b, the two halves of W apart."""
    weight, bias = (p.detach().numpy().astype(float) for p in (head.fc.weight, head.fc.bias))
    f_c, f_r = branch(x_c, head.conventional), branch(x_r, head.rebalancing)
    return f_c @ weight[:, :5].T * alpha + f_r @ weight[:, 5:].T * (1 - alpha) + bias


def cross_entropy(z: np.ndarray, y: np.ndarray) -> float:
    log_sum = np.log(np.exp(z).sum(axis=1))
    return float((log_sum - z[np.arange(len(y)), y]).mean())


@pytest.mark.parametrize('alpha', [1.0, 0.75, 0.0])
def test_the_loss_is_that_of_the_mixture(alpha: float) -> None:
    head, x, y = head_and_batch()
    head.alpha = alpha
    losses = head.loss((torch.from_numpy(x),), [DataSample().set_gt_label(int(c)) for c in y])
    z = mixture(head, x[:4].astype(float), x[4:].astype(float), alpha)
    expected = alpha * cross_entropy(z, y[:4]) + (1 - alpha) * cross_entropy(z, y[4:])
    assert losses['loss'].item() == pytest.approx(expected, rel=1e-6)
    assert losses['alpha'].item() == alpha
    losses['loss'].backward()
    # At an end of training one branch alone is trained.
    assert (head.rebalancing.weight.grad.abs().sum() > 0) == (alpha < 1)
    assert (head.conventional.weight.grad.abs().sum() > 0) == (alpha > 0)


def test_both_branches_predict_alike_whatever_alpha_was() -> None:
    head, x, _ = head_and_batch()
    head.alpha = 0.9
    z = mixture(head, x.astype(float), x.astype(float), 0.5)
    logits = head((torch.from_numpy(x),))
    np.testing.assert_allclose(logits.detach().numpy(), z, rtol=1e-5, atol=1e-6)
    predicted = [sample.pred_label.item() for sample in head.predict((torch.from_numpy(x),))]
    assert predicted == z.argmax(axis=1).tolist()


def test_a_batch_without_halves_or_alpha_is_refused() -> None:
    head, x, y = head_and_batch()
    samples = [DataSample().set_gt_label(int(c)) for c in y]
    with pytest.raises(ValueError, match=r'8 samples and alpha=None.*CumulativeLearningHook'):
        head.loss((torch.from_numpy(x),), samples)
    head.alpha = 0.5
    with pytest.raises(ValueError, match=r'7 samples.*BilateralBatchSampler'):
        head.loss((torch.from_numpy(x[:7]),), samples[:7])


def test_classes_are_drawn_in_reversed_proportion() -> None:
    weight = reversed_sample_weight(torch.from_numpy(LABELS), torch.tensor(COUNTS)).numpy()
    of_class = np.bincount(LABELS, weights=weight)
    inverse = 1 / np.array(COUNTS)
    np.testing.assert_allclose(of_class, inverse / inverse.sum(), rtol=1e-12)
    for label in range(3):
        assert len(set(weight[label == LABELS])) == 1


def batches(seed: int = 0, epoch: int = 0, **options: Any) -> list[list[int]]:
    sampler = DefaultSampler(Images(), shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(BilateralBatchSampler(sampler, batch_size=5, **options))


def test_a_batch_is_that_of_the_sampler_and_as_many_draws() -> None:
    found = batches()
    assert [len(batch) for batch in found] == [10, 10, 10, 4]
    plain = DefaultSampler(Images(), shuffle=True, seed=0)
    assert [i for batch in found for i in batch[: len(batch) // 2]] == list(plain)
    assert [len(batch) for batch in batches(drop_last=True)] == [10, 10, 10]
    assert batches() == found
    assert batches(epoch=1) != found != batches(seed=1)
    drawn = [i for e in range(300) for b in batches(epoch=e) for i in b[len(b) // 2 :]]
    share = np.bincount(LABELS[drawn], minlength=3) / len(drawn)
    inverse = 1 / np.array(COUNTS)
    np.testing.assert_allclose(share, inverse / inverse.sum(), atol=0.02)


def test_ranks_draw_different_images(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        drawn.append([i for batch in batches() for i in batch[len(batch) // 2 :]])
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, 1))
    together = [i for batch in batches() for i in batch[len(batch) // 2 :]]
    assert [len(part) for part in drawn] == [9, 9]
    assert [drawn[i % 2][i // 2] for i in range(17)] == together


def test_another_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match='takes a DefaultSampler, got InfiniteSampler'):
        BilateralBatchSampler(InfiniteSampler(Images(), seed=0), batch_size=5)


def train(
    work_dir: Path, end: int, *, resume: bool = False, by_epoch: bool = True, **options: Any
) -> list[float | None]:
    """Alpha of each iteration; four iterations an epoch."""
    unit = dict(by_epoch=True, max_epochs=end) if by_epoch else dict(by_epoch=False, max_iters=end)
    model = Classifier(options.pop('head', None) or BBNHead(3, 17))
    loader = dict(
        dataset=Images(),
        batch_size=5,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=lambda samples: {key: [s[key] for s in samples] for key in samples[0]},
        batch_sampler=dict(type='BilateralBatchSampler'),
    )
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader={**loader, **options},
        train_cfg=unit,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch)),
        custom_hooks=[dict(type='CumulativeLearningHook')],
        resume=resume,
        experiment_name=f'{work_dir.name}_{end}_{resume}',
        default_scope='mmpretrain',
        log_level='ERROR',
    )
    runner.train()
    return model.seen


def test_alpha_falls_by_the_square_of_the_progress_and_a_resumed_run_goes_on(
    tmp_path: Path,
) -> None:
    assert train(tmp_path / 'epochs', 4) == [1 - (e / 4) ** 2 for e in range(4) for _ in range(4)]
    iterations = train(tmp_path / 'iterations', 5, by_epoch=False)
    assert iterations == [1 - (i / 5) ** 2 for i in range(5)]
    train(tmp_path / 'cut', 2)
    assert train(tmp_path / 'cut', 4, resume=True) == [
        1 - (e / 4) ** 2 for e in (2, 3) for _ in 'four'
    ]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(head=LinearClsHead(3, 17)), 'got LinearClsHead and BilateralBatchSampler'),
        (dict(batch_sampler=None), 'got BBNHead and BatchSampler'),
    ],
)
def test_half_of_the_method_is_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, 1, **options)
