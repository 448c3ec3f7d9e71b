"""Official annotation files are read, what is wrong in them is named, and tails are as drawn."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from sklearn.datasets import load_digits

from mmseg_recall.classification.datasets import (
    DigitsDataset,
    ELPVDataset,
    LongTailedDataset,
    elpv,
    long_tail,
)
from mmseg_recall.classification.datasets.class_statistics import write_class_statistics
from mmseg_recall.losses.class_counts import load_class_counts

ROOT = Path(__file__).parents[2]
PIPELINE = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackInputs')]
DIGITS = dict(type='DigitsDataset', split='train')
IMAGES = {'a/one.jpg': 3, 'a/two.jpg': 0, 'b/three with spaces.jpg': 3}


@pytest.fixture(autouse=True)
def mmpretrain_scope() -> None:
    init_default_scope('mmpretrain')


def write_images(root: Path) -> None:
    for index, name in enumerate(IMAGES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (16, 12), (10 * index, 20, 30)).save(root / name)


def places(root: Path) -> dict:
    (root / 'train.txt').write_text(''.join(f'{name} {y}\n' for name, y in IMAGES.items()))
    return dict(
        type='PlacesLTDataset', data_root=str(root), ann_file='train.txt', pipeline=PIPELINE
    )


def inaturalist(root: Path) -> dict:
    # Neither in the order of the annotations nor with ids from 0.
    images = [dict(id=50 + i, file_name=name) for i, name in enumerate(IMAGES)]
    annotations = [
        dict(id=i, image_id=50 + i, category_id=y) for i, y in enumerate(IMAGES.values())
    ]
    content = dict(images=images, annotations=annotations[::-1], categories=[])
    (root / 'train.json').write_text(json.dumps(content))
    return dict(
        type='INaturalist2018Dataset', data_root=str(root), ann_file='train.json', pipeline=PIPELINE
    )


@pytest.fixture(params=[(places, 365), (inaturalist, 8142)], ids=['places', 'inaturalist'])
def official(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict, Path, int]:
    """Config of a data set, its root, and its number of classes."""
    make, num_classes = request.param
    write_images(tmp_path)
    return make(tmp_path), tmp_path, num_classes


def test_images_have_their_labels(official: tuple[dict, Path, int]) -> None:
    config, root, num_classes = official
    dataset = DATASETS.build(config)
    assert len(dataset.metainfo['classes']) == num_classes
    found = {
        str(Path(info['img_path']).relative_to(root)): info['gt_label']
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    assert found == IMAGES
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 12, 16)
    assert sample['data_samples'].gt_label.item() == dataset.get_gt_labels()[0]


def test_what_is_missing_is_named(official: tuple[dict, Path, int]) -> None:
    config, root, _ = official
    (root / 'a/two.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'a/two\.jpg is missing, an image of .*train\.'):
        DATASETS.build(config)
    (root / config['ann_file']).unlink()
    with pytest.raises(FileNotFoundError, match=r'train\.(txt|json) is missing'):
        DATASETS.build(config)


@pytest.mark.parametrize('keep', [0, 0.5, None], ids=['empty', 'truncated', 'text'])
def test_an_unreadable_image_is_named(official: tuple[dict, Path, int], keep: float | None) -> None:
    config, root, _ = official
    dataset = DATASETS.build(config)
    for name in IMAGES:
        data = (root / name).read_bytes()
        (root / name).write_bytes(b'no image' if keep is None else data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r'\.jpg: truncated, damaged or not an image'):
        dataset[0]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'a/one.jpg 3\na/two.jpg\n', r'train\.txt, line 2: expected "PATH LABEL", got \'a/two'),
        (b'a/one.jpg 3\n\n', r"line 2: expected .*, got ''"),
        (b'a/one.jpg -1\n', r'line 1: expected .*-1'),
        (b'a/one.jpg 365\n', r'line 1: label 365 is not a class in \[0, 365\)'),
        (b'a/one.jpg 3\nb/none.jpg 3\n', r'b/none\.jpg is missing, an image of .*line 2'),
        (b'\xff\xfe\x00', r'train\.txt is not a text file'),
        (b'', r'train\.txt names no image'),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_images(tmp_path)
    config = places(tmp_path)
    (tmp_path / 'train.txt').write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DATASETS.build(config)


def change(key: str, index: int, **values: object) -> Callable[[dict], None]:
    return lambda content: content[key][index].update(values)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda c: c.pop('images'), r'must hold an object with a list "images"'),
        (lambda c: c.update(annotations=3), r'must hold an object with a list "annotations"'),
        (change('annotations', 1, category_id=8142), r'annotations\[1\]: label 8142 is not a'),
        (change('annotations', 1, category_id='3'), r"annotations\[1\]: label '3' is not a"),
        (change('annotations', 0, image_id=7), r'annotations\[0\]: image_id 7 is not among'),
        (change('annotations', 0, image_id=50), r'annotations\[2\]: image_id 50 has an anno'),
        (change('images', 2, file_name=None), r'images\[2\]: expected id and file_name, got'),
        (change('images', 1, id=50), r'images\[1\]: id 50 is that of an image before'),
        (lambda c: c['annotations'].pop(0), r'1 images have no annotation, such as b/three'),
    ],
)
def test_malformed_json_is_named(
    tmp_path: Path, damage: Callable[[dict], None], message: str
) -> None:
    write_images(tmp_path)
    config = inaturalist(tmp_path)
    content = json.loads((tmp_path / 'train.json').read_text())
    damage(content)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'train\.json.*{message}'):
        DATASETS.build(config)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    config = inaturalist(tmp_path)
    (tmp_path / 'train.json').write_text('{"images": [')
    with pytest.raises(ValueError, match=r'train\.json is not JSON'):
        DATASETS.build(config)


def test_digits_are_split_once() -> None:
    images, labels = load_digits().images, load_digits().target
    found = []
    for split in ('train', 'test'):
        data = DigitsDataset(split)
        infos = [data.get_data_info(i) for i in range(len(data))]
        found += [(info['gt_label'], info['img'].tobytes()) for info in infos]
        counts = np.bincount(data.get_gt_labels())
        assert set(counts) == {50} if split == 'test' else counts.min() == 124
    every = [
        (int(y), image.astype(np.uint8).tobytes()) for image, y in zip(images, labels, strict=True)
    ]
    assert sorted(found) == sorted(every)
    with pytest.raises(ValueError, match=r"split must be one of .*'val'"):
        DigitsDataset('val')


@pytest.mark.parametrize('profile', ['exponential', 'pareto'])
def test_a_tail_falls_from_the_largest_by_the_factor(profile: str) -> None:
    counts = long_tail(10_000, 365, 1000, profile)
    assert (counts[0], counts[-1]) == (10_000, 10)
    assert counts == sorted(counts, reverse=True)
    assert long_tail(7, 4, 1, profile) == [7] * 4
    assert long_tail(5, 3, 100, profile)[-1] == 1


def test_the_profiles_are_their_formulas() -> None:
    assert long_tail(1000, 4, 8) == [1000, 500, 250, 125]
    # Survival function of a Pareto variable at 1, 1 + s / 3, ..., with power 2 and 1 / 9 last.
    s = math.sqrt(9) - 1
    expected = [math.floor(900 / (1 + k * s / 3) ** 2 + 1e-9) for k in range(4)]
    assert long_tail(900, 4, 9, 'pareto', alpha=2) == expected
    assert long_tail(10**6, 5, 50, 'pareto', alpha=1e9) == pytest.approx(
        long_tail(10**6, 5, 50), rel=1e-5
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(imbalance_factor=0.5), 'imbalance_factor must be >= 1'),
        (dict(imbalance_factor=math.nan), 'imbalance_factor must be >= 1'),
        (dict(imbalance_factor=9, profile='linear'), "profile must be one of .*'linear'"),
        (dict(imbalance_factor=9, profile='pareto', alpha=0), 'alpha must be positive'),
    ],
)
def test_bad_tails_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongTailedDataset(DIGITS, **options)


def test_long_tailed_data_keeps_images_and_depends_on_the_seed_alone() -> None:
    whole = DigitsDataset('train')
    originals = {
        (info['gt_label'], info['img'].tobytes())
        for info in map(whole.get_data_info, range(len(whole)))
    }

    def draw(seed: int) -> list[tuple[int, bytes]]:
        data = LongTailedDataset(DIGITS, imbalance_factor=50, seed=seed)
        assert np.bincount(data.get_gt_labels()).tolist() == data.class_counts
        assert len(data) == sum(data.class_counts)
        assert data.get_cat_ids(0) == [data.get_gt_labels()[0]]
        infos = map(data.get_data_info, range(len(data)))
        return [(info['gt_label'], info['img'].tobytes()) for info in infos]

    first = draw(0)
    assert len(set(first)) == len(first) and set(first) <= originals
    assert draw(0) == first
    assert draw(1) != first


def test_any_data_set_can_be_long_tailed(tmp_path: Path) -> None:
    write_images(tmp_path)
    config = dict(places(tmp_path), classes=['cat', 'lynx'])
    # Class 0 has one image and class 1 two, of which as many are kept.
    (tmp_path / 'train.txt').write_text('a/one.jpg 1\na/two.jpg 0\nb/three with spaces.jpg 1\n')
    data = LongTailedDataset(config, imbalance_factor=1, lazy_init=True)
    assert data.class_counts == []
    assert len(data) == 2
    assert data.class_counts == [1, 1]
    assert data[0]['inputs'].shape == (3, 12, 16)
    config['classes'] = ['cat', 'lynx', 'ocelot']
    with pytest.raises(ValueError, match="class 'ocelot' of PlacesLTDataset has no image"):
        LongTailedDataset(config, imbalance_factor=1)


def test_class_statistics_are_what_the_losses_read(
    official: tuple[dict, Path, int], tmp_path: Path
) -> None:
    config, _, num_classes = official
    cfg = Config(dict(train_dataloader=dict(dataset=config), class_counts=str(tmp_path / 'c.json')))
    counts = load_class_counts(write_class_statistics(cfg))
    text = (tmp_path / 'c.json').read_text()
    cfg.train_dataloader.dataset.type = DATASETS.get(config['type'])
    assert write_class_statistics(cfg).read_text() == text
    assert len(counts) == num_classes
    assert counts.nonzero().flatten().tolist() == [0, 3]
    assert counts[[0, 3]].tolist() == [1, 2]
    cfg.class_counts = [1, 2]
    with pytest.raises(ValueError, match='name one with --out'):
        write_class_statistics(cfg)


def test_a_tail_may_begin_above_the_smallest_class() -> None:
    counts = LongTailedDataset(DIGITS, imbalance_factor=10, largest=128).class_counts
    assert counts == long_tail(128, 10, 10)
    assert counts[0] == 128 > 124  # which the smallest class has
    with pytest.raises(
        ValueError,
        match=r"class '0' of DigitsDataset has 128 images, its share of largest=500 is 500",
    ):
        LongTailedDataset(DIGITS, imbalance_factor=10, largest=500)


PROBABILITIES = ('0.0', '0.3333333333333333', '0.6666666666666666', '1.0')


def solar_cells(root: Path, row: str, images: int = 3) -> tuple[Path, list[int]]:
    """Labels in a published form, images, and the class of each."""
    (root / 'images').mkdir()
    rows, labels = [], []
    for index in range(8 * images):
        grade, kind = index % 4, ('mono', 'poly')[index // 4 % 2]
        name = f'cell{index:04}.png'
        Image.new('L', (20, 20), 10 * index).save(root / 'images' / name)
        rows.append(row.format(name=name, probability=PROBABILITIES[grade], kind=kind))
        labels.append(elpv.CLASSES.index(f'{kind} {elpv.GRADES[grade]}'))
    (root / 'labels.csv').write_text('\n'.join(rows) + '\n')
    return root, labels


@pytest.mark.parametrize(
    'row', ['images/{name}  {probability}      {kind}', '{name},{probability},{kind}']
)
def test_labels_of_the_solar_cells_are_read_in_both_forms(tmp_path: Path, row: str) -> None:
    root, labels = solar_cells(tmp_path, row)
    path = root / 'labels.csv'
    expected = [(f'cell{i:04}.png', label) for i, label in enumerate(labels)]
    assert list(elpv.read_labels(path)) == expected
    path.write_text('image,defect_probability,cell_type\n' + path.read_text())
    assert list(elpv.read_labels(path)) == expected
    path.write_text(path.read_text() + 'cell9999.png,1.0,thin\n')
    with pytest.raises(
        ValueError, match=r"labels\.csv, line 26: expected .*'cell9999\.png,1\.0,thi"
    ):
        list(elpv.read_labels(path))


def test_the_split_of_the_solar_cells_is_fixed_and_whole() -> None:
    labels = np.repeat(np.arange(8), [920, 588, 402, 313, 178, 117, 56, 50])
    parts = elpv.split(labels)
    assert {name: len(part) for name, part in parts.items()} == dict(test=200, val=80, train=2344)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(2624))
    assert set(np.bincount(labels[parts['test']])) == {25}
    again = elpv.split(labels)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)


def test_solar_cells_become_feature_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, 'HELD_OUT', dict(test=1, val=1))
    root, labels = solar_cells(tmp_path, '{name},{probability},{kind}')
    network = dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0', features_only=True)
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=MODELS.build(network).state_dict()), weights)
    out = tmp_path / 'out'
    elpv.convert_elpv(root, weights, out)
    for name, chosen in elpv.split(np.array(labels)).items():
        data = ELPVDataset(ann_file=f'{name}.npz', data_root=str(out))
        assert data.get_gt_labels().tolist() == [labels[i] for i in chosen]
        image = np.asarray(Image.open(root / 'images' / f'cell{chosen[0]:04}.png').convert('RGB'))
        pixels = torch.full((1, 3, 128, 128), float(image[0, 0, 0])) / 127.5 - 1
        (feature,) = elpv.frozen_backbone(weights)(pixels)
        found = torch.from_numpy(data.get_data_info(0)['img']).float()
        torch.testing.assert_close(found, feature[0].permute(1, 2, 0), rtol=2e-3, atol=1e-4)

    tool = ROOT / 'tools/classification/convert_elpv.py'
    command = [sys.executable, tool, root, '--weights', weights, '--out', tmp_path / 'by tool']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f'{tmp_path / "by tool"} is complete\n'
    assert re.fullmatch(r'Feature maps .*100%.*\n', done.stderr)

    (root / 'images/cell0003.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'cell0003\.png: truncated, damaged'):
        elpv.convert_elpv(root, weights, out)
    (root / 'images/cell0003.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'cell0003\.png is missing'):
        elpv.convert_elpv(root, weights, out)
    torch.save(dict(state_dict={}), weights)
    with pytest.raises(ValueError, match=r'weights\.pth: not the weights of EfficientNet-Lite0'):
        elpv.convert_elpv(root, weights, out)
    (out / 'val.npz').write_bytes((out / 'val.npz').read_bytes()[:100])
    with pytest.raises(ValueError, match=r'val\.npz: damaged, or no feature maps'):
        ELPVDataset(ann_file='val.npz', data_root=str(out))
    with pytest.raises(FileNotFoundError, match=r'none\.npz is missing'):
        ELPVDataset(ann_file='none.npz', data_root=str(out))
