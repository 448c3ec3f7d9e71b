"""Crops by class: what is drawn, how often, where the crop lies, and the remembered index."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import worker_init_fn
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from mmseg_recall.datasets import ClassBalancedCrops, CropAroundClass, class_balanced_crops
from mmseg_recall.datasets.class_statistics import class_statistics

from . import stubs

CLASSES = ('road', 'car', 'pole', 'train')
CROP = 4, 6


@pytest.fixture
def config(tmp_path: Path) -> dict:
    """Road everywhere; cars in two images of six, a pole of one pixel in one; no train."""
    init_default_scope('mmseg')
    rng = np.random.default_rng(0)
    for number in range(6):
        label = np.zeros((stubs.SIZE[1], stubs.SIZE[0]), np.uint8)
        label[-1, -1] = 255
        if number in (1, 2):
            label[2:5, 3:9] = 1
        if number == 2:
            label[-1, 0] = 2
        stubs.write(tmp_path / 'images' / 'train' / f'{number}.png', stubs.picture(rng))
        stubs.write(tmp_path / 'annotations' / 'train' / f'{number}.png', label)
    dataset = stubs.dataset(
        'BaseSegDataset', tmp_path, img_suffix='.png', metainfo=dict(classes=CLASSES)
    )
    crop = dict(type='CropAroundClass', crop_size=CROP)
    pipeline = [*stubs.PIPELINE[:2], crop, stubs.PIPELINE[2]]
    index = str(tmp_path / 'class_images.json')
    return dict(type='ClassBalancedCrops', dataset=dict(dataset, pipeline=pipeline), index=index)


def build(config: dict) -> ClassBalancedCrops:
    dataset = DATASETS.build(config)
    with pytest.warns(UserWarning, match=r"drawn for \['train'\]"):
        dataset.full_init()
    return dataset


def test_draws_every_class_equally_often(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(config)
    assert len(dataset) == 6 and dataset.metainfo['classes'] == CLASSES
    drawn = []
    monkeypatch.setattr(dataset.dataset, 'pipeline', drawn.append)
    np.random.seed(0)
    for _ in range(3000):
        dataset[0]
    number = Counter((d['crop_class'], Path(d['img_path']).stem) for d in drawn)
    assert number.keys() == {*((0, str(i)) for i in range(6)), (1, '1'), (1, '2'), (2, '2')}
    for (c, _), times in number.items():
        # Binomial: five standard deviations.
        share = 1 / 3 / len(dataset.images[c])
        assert abs(times / 3000 - share) < 5 * (share * (1 - share) / 3000) ** 0.5


def test_every_crop_has_the_class(config: dict) -> None:
    dataset = build(config)
    np.random.seed(0)
    number = Counter()
    for _ in range(300):
        sample = dataset[0]
        label = sample['data_samples'].gt_sem_seg.data
        assert sample['inputs'].shape[1:] == label.shape[1:] == CROP
        number.update(set(label.unique().tolist()))
    # A third of the crops each, were they drawn for no other reason.
    assert number[1] > 80 and number[2] > 80


@pytest.mark.parametrize('size', [(4, 6), (1, 1), (8, 10), (20, 4), (30, 30)])
def test_crops_are_those_with_the_pixel(size: tuple[int, int]) -> None:
    """Uniform over them, and no others; an image smaller than the crop is left whole."""
    crop, boxes = CropAroundClass(size), Counter()
    np.random.seed(0)
    for y, x in [(0, 0), (7, 9), (3, 4), (7, 0)]:
        label = np.zeros((8, 10), np.uint8)
        label[y, x] = 5
        for _ in range(200):
            out = crop(dict(img=label, gt_seg_map=label, seg_fields=[], crop_class=5))
            assert (
                out['img'].shape == (min(size[0], 8), min(size[1], 10)) and (out['img'] == 5).any()
            )
        boxes[y, x] = len(
            {crop.crop_bbox(dict(gt_seg_map=label, crop_class=5)) for _ in range(500)}
        )
    if size == (4, 6):
        # Of 5 x 5 places, those that hold the pixel.
        assert boxes == {(0, 0): 1, (7, 9): 1, (3, 4): 4 * 5, (7, 0): 1}


def test_without_a_pixel_it_is_any_crop() -> None:
    label = np.zeros((8, 8), np.uint8)
    crop, starts = CropAroundClass(6), set()
    for _ in range(200):
        starts.add(crop.crop_bbox(dict(gt_seg_map=label, crop_class=5))[::2])
    assert len(starts) == 9


def test_the_seed_decides(config: dict) -> None:
    dataset = build(config)

    def images(seed: int) -> list:
        loader = DataLoader(
            dataset,
            num_workers=1,
            collate_fn=lambda items: items[0]['inputs'],
            worker_init_fn=lambda i: worker_init_fn(i, num_workers=1, rank=0, seed=seed),
        )
        return [image.tolist() for image in loader]

    assert images(1) == images(1) != images(2)


def test_the_index_is_read_again_only_for_other_files(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = build(config).images
    assert images == {0: [*range(6)], 1: [1, 2], 2: [2]}
    index = Path(config['index'])
    assert json.loads(index.read_bytes())['classes'] == list(CLASSES)

    def unread(*args: object) -> None:
        raise AssertionError('labels are read again')

    with monkeypatch.context() as patch:
        patch.setattr(class_balanced_crops, 'parallel_map', unread)
        assert build(config).images == images
    for content in (b'', b'[]', b'{"files": 3}', b'\xff'):
        index.write_bytes(content)
        assert build(config).images == images
    label = np.full((stubs.SIZE[1], stubs.SIZE[0]), 2, np.uint8)
    stubs.write(tmp_path / 'annotations' / 'train' / '0.png', label)
    assert build(config).images == {0: [1, 2, 3, 4, 5], 1: [1, 2], 2: [0, 2]}


def test_what_does_not_fit_is_refused(config: dict, tmp_path: Path) -> None:
    plain = dict(config['dataset'], pipeline=stubs.PIPELINE)
    with pytest.raises(ValueError, match='BaseSegDataset has no CropAroundClass'):
        DATASETS.build(dict(config, dataset=plain))
    repeated = dict(type='RepeatDataset', dataset=config['dataset'], times=2)
    with pytest.raises(TypeError, match='not RepeatDataset'):
        DATASETS.build(dict(config, dataset=repeated))
    with pytest.raises(KeyError, match='crop_class'):
        DATASETS.build(config['dataset'])[0]
    path = tmp_path / 'annotations' / 'train' / '3.png'
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'3\.png'):
        DATASETS.build(config).full_init()
    stubs.write(path, np.full((4, 4), 77, np.uint8))
    with pytest.raises(ValueError, match=r'3\.png: unknown ids \[77\]'):
        DATASETS.build(config).full_init()
    for label in path.parent.iterdir():
        stubs.write(label, np.full((16, 24), 255, np.uint8))
    with pytest.raises(ValueError, match='no label of BaseSegDataset'):
        DATASETS.build(config).full_init()


def test_statistics_are_those_of_the_data_set(config: dict) -> None:
    counted, inner = (
        class_statistics(Config(dict(train_dataloader=dict(dataset=dataset))))
        for dataset in (config, config['dataset'])
    )
    assert counted['pixels'] == inner['pixels'] and counted['images'] == 6


def test_several_are_put_together(config: dict) -> None:
    with pytest.warns(UserWarning, match='train'):
        both = DATASETS.build(dict(type='ConcatDataset', datasets=[config, config]))
    assert len(both) == 12 and both[11]['inputs'].shape[1:] == CROP
