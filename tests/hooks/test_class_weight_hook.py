"""What the hook logs, from a real (tiny) training run: values, names, places, and silence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmseg_recall.comparison.work_dir import weight_curves

CLASSES = ('road', 'pole', 'never')


class Images(Dataset):
    """Eight fixed images of 4 x 4 pixels; the last class is on none of them."""

    def __init__(self) -> None:
        self.metainfo = dict(classes=CLASSES)
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(8, 2, 4, 4, generator=generator)
        self.target = (torch.rand(8, 4, 4, generator=generator) < 0.2).long()
        self.target[:, 0] = 255

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.target[index]


class Segmentor(BaseModel):
    """One convolution, heads with a loss each, placed as mmseg places them."""

    def __init__(self, **losses: dict | list[dict]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, len(CLASSES), 1)
        for head, loss in losses.items():
            module = nn.Module()
            several = isinstance(loss, list)
            built = [MODELS.build(one) for one in (loss if several else [loss])]
            module.loss_decode = nn.ModuleList(built) if several else built[0]
            self.add_module(head, module)
        self.heads = list(losses)

    def forward(self, inputs: Tensor, target: Tensor, mode: str) -> dict[str, Tensor]:
        logits = self.conv(inputs)
        losses = {}
        for head in self.heads:
            own = getattr(self, head).loss_decode
            for i, loss in enumerate(own if isinstance(own, nn.ModuleList) else [own]):
                losses[f'loss_{head}_{i}'] = loss(logits, target, ignore_index=255)
        return losses


def train(
    work_dir: Path, iterations: int = 4, hook: dict | None = None, **losses: dict | list
) -> list:
    """Lines of scalars.json with anything that the hook logged, and the final model."""
    images = Images()
    runner = Runner(
        Segmentor(**losses),
        str(work_dir),
        # Without an end of the data, at which mmengine sleeps for two seconds.
        train_dataloader=DataLoader(images, batch_size=8, sampler=InfiniteSampler(images, False)),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2)),
        custom_hooks=[dict(type='ClassWeightHook', **(hook or {}))],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name=work_dir.name,
        default_scope='mmseg',
    )
    runner.train()
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if any('/' in key for key in line)]


def logits() -> tuple[Tensor, Tensor]:
    images = Images()
    return Segmentor().conv(images.inputs).detach(), images.target


def expected(weight) -> dict[str, float]:
    """Values counted pixel by pixel; ``weight(hits, ps)`` of a class from its pixels."""
    scores, target = logits()
    p = scores.softmax(dim=1)
    pixels = [
        (int(y), float(p[n, y, i, j]), int(scores[n, :, i, j].argmax()) == int(y))
        for n, i, j in torch.cartesian_prod(torch.arange(8), torch.arange(4), torch.arange(4))
        if (y := target[n, i, j]) != 255
    ]
    values = {}
    for c, name in enumerate(CLASSES):
        mine = [(p, hit) for y, p, hit in pixels if y == c]
        hits = [hit for _, hit in mine]
        values[f'weight/{name}'] = weight(hits, [p for p, _ in mine]) if mine else math.nan
        values[f'recall/{name}'] = sum(hits) / len(hits) if mine else math.nan
        values[f'pixel_share/{name}'] = len(mine) / len(pixels)
    return values


def recall_weight(hits, ps) -> float:
    return 1 - sum(hits) / len(hits)


def focal_weight(hits, ps) -> float:
    return sum((1 - p) ** 2 for p in ps) / len(ps)


def values_of(line: dict, head: str) -> dict[str, float]:
    return {k.removeprefix(f'{head}/'): v for k, v in line.items() if k.startswith(f'{head}/')}


def test_every_logging_interval_has_the_values_of_each_class(tmp_path):
    lines = train(tmp_path, decode_head=dict(type='RecallLoss'))
    assert [line['step'] for line in lines] == [2, 4]
    for line in lines:
        values = values_of(line, 'decode_head')
        assert values == pytest.approx(expected(recall_weight), nan_ok=True)


def test_focal_loss_logs_its_implied_weight(tmp_path):
    loss = dict(type='SoftmaxFocalLoss', gamma=2.0)
    (line,) = train(tmp_path, hook=dict(interval=3), decode_head=loss)
    assert line['step'] == 3
    values = values_of(line, 'decode_head')
    assert values == pytest.approx(expected(focal_weight), rel=1e-5, nan_ok=True)


def test_each_head_is_logged_and_a_loss_that_is_not_ours_is_left_alone(tmp_path):
    lines = train(
        tmp_path,
        decode_head=dict(type='SoftmaxFocalLoss'),
        auxiliary_head=dict(type='InverseFrequencyLoss', class_counts=[6, 2, 1]),
        stock_head=dict(type='CrossEntropyLoss'),
    )
    assert {key.split('/')[0] for key in lines[0]} == {'decode_head', 'auxiliary_head', 'step'}
    weights = [lines[0][f'auxiliary_head/weight/{name}'] for name in CLASSES[:2]]
    assert weights == pytest.approx([9 / (3 * 6), 9 / (3 * 2)])


def test_one_of_several_losses_of_a_head_is_logged_by_its_place(tmp_path):
    both = [dict(type='CrossEntropyLoss', avg_non_ignore=True), dict(type='RecallLoss')]
    lines = train(tmp_path, decode_head=both)
    assert {key.split('/')[0] for key in lines[0]} == {'decode_head.1', 'step'}
    assert weight_curves(lines)['weight']['road'] == pytest.approx(
        [line['decode_head.1/weight/road'] for line in lines], rel=1e-3
    )


@pytest.mark.parametrize(
    ('names', 'shown'),
    [
        (('road',), ['road', 'class 1', 'class 2']),
        ((), ['class 0', 'class 1', 'class 2']),
        (None, ['class 0', 'class 1', 'class 2']),
        (('road', 'pole', 'never', 'more'), ['road', 'pole', 'never']),
    ],
)
def test_classes_that_the_dataset_does_not_name_are_numbered(
    names, shown, tmp_path, monkeypatch, capfd
):
    stock = Images.__init__

    def other_names(self):
        stock(self)
        self.metainfo = dict(classes=names)

    monkeypatch.setattr(Images, '__init__', other_names)
    monkeypatch.setattr(nn.Module, 'num_classes', 3, raising=False)
    lines = train(tmp_path, decode_head=dict(type='RecallLoss'))
    logged = [key.split('/')[-1] for key in lines[0] if key.startswith('decode_head/weight/')]
    assert logged == shown
    warning = f'decode_head has 3 classes, and the training set names {len(names or ())}'
    assert warning in capfd.readouterr().out


def test_without_a_loss_of_ours_nothing_is_logged(tmp_path):
    assert train(tmp_path, decode_head=dict(type='CrossEntropyLoss')) == []


def test_a_loss_that_is_not_called_is_not_logged(tmp_path, monkeypatch) -> None:
    """The head of a teacher, say; what it did in an earlier iteration is not logged again."""
    models, forward = [], Segmentor.forward

    def first_batch_only(self, *args, **kwargs):
        self.heads = ['decode_head'] if self in models else ['decode_head', 'teacher', 'focal']
        models.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Segmentor, 'forward', first_batch_only)
    recall = dict(type='RecallLoss')
    heads = dict(decode_head=recall, teacher=recall, focal=dict(type='SoftmaxFocalLoss'))
    lines = train(tmp_path, **heads)
    assert any(name.startswith('decode_head') for line in lines for name in line)
    assert not any(name.startswith(('teacher', 'focal')) for line in lines for name in line)
    assert not models[0].focal.loss_decode._forward_hooks
