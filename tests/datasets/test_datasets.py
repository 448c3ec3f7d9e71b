import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS, RUNNERS

from mmseg_recall.datasets import (
    CamVidDataset,
    SynthiaSeqsDataset,
    VirtualKitti2Dataset,
    available_datasets,
)
from mmseg_recall.datasets.checked import CheckedSegDataset
from tests.configs.trees import shrink, write_tree
from tests.tools.run import ROOT

from . import stubs

BASES = ROOT / 'configs/_base_/datasets'
each_dataset = pytest.mark.parametrize('name', available_datasets())

PAPER = [
    *('sky', 'building', 'road', 'sidewalk', 'fence', 'vegetation', 'pole', 'car'),
    *('traffic sign', 'pedestrian', 'bicycle', 'lanemarking', 'traffic light'),
]
CAMVID = [
    *('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign_symbol', 'fence', 'car'),
    *('pedestrian', 'bicyclist'),
]
VIRTUAL_KITTI = [
    *('terrain', 'sky', 'tree', 'vegetation', 'building', 'road', 'guard rail', 'traffic sign'),
    *('traffic light', 'pole', 'misc', 'truck', 'car', 'van'),
]


def labels(config):
    data = DATASETS.build(config)
    return data, [item['data_samples'].gt_sem_seg.data[0].numpy() for item in data]


def test_class_names():
    assert list(SynthiaSeqsDataset.METAINFO['classes']) == PAPER
    assert list(CamVidDataset.METAINFO['classes']) == CAMVID
    assert list(VirtualKitti2Dataset.METAINFO['classes']) == VIRTUAL_KITTI


@each_dataset
def test_classes_have_names_and_colours_of_their_own(name):
    classes = available_datasets()[name].METAINFO['classes']
    assert len(set(classes)) == len(classes) > 1
    # mmseg draws the colours of a dataset without a palette.
    palette = available_datasets()[name](lazy_init=True).metainfo['palette']
    assert len({tuple(colour) for colour in palette}) == len(classes)


@pytest.mark.parametrize('path', sorted(BASES.glob('*.py')), ids=lambda path: path.stem)
def test_a_base_loads_what_its_dataset_reads(tmp_path, path):
    """The training crops of a tiny tree, with ids of the dataset, in the layout of the base."""
    config = Config.fromfile(path)
    write_tree(config, tmp_path)
    for split in ('train', 'val', 'test'):
        data = DATASETS.build({**config[f'{split}_dataloader'].dataset, 'data_root': tmp_path})
        label = data[0]['data_samples'].gt_sem_seg.data
        assert data[0]['inputs'].shape[0] == 3
        assert set(label.unique().tolist()) <= {*range(len(data.metainfo['classes'])), 255}
    assert Path(config.class_counts).parent == Path(config.data_root)


def test_paper_protocol_maps_13_classes_and_ignores_the_rest(tmp_path):
    truth = stubs.tree(tmp_path, {'train': 3}, count=16)
    data, loaded = labels(stubs.dataset('SynthiaSeqsDataset', tmp_path))
    assert list(data.metainfo['classes']) == PAPER
    assert len(data.metainfo['palette']) == 13
    want = {0: 255, 13: 255, 14: 255, 15: 12, **{id_: id_ - 1 for id_ in range(1, 13)}}
    for label, ids in zip(loaded, truth['train'].values(), strict=True):
        np.testing.assert_array_equal(label, np.vectorize(want.get)(ids))


def test_authors_protocol_keeps_16_ids(tmp_path):
    truth = stubs.tree(tmp_path, {'train': 3}, count=16)
    data, loaded = labels(stubs.dataset('SynthiaSeqsDataset', tmp_path, protocol='authors'))
    assert len(data.metainfo['classes']) == len(data.metainfo['palette']) == 16
    assert data.metainfo['classes'][0] == 'void'
    for label, ids in zip(loaded, truth['train'].values(), strict=True):
        np.testing.assert_array_equal(label, ids)


def test_chosen_classes_keep_their_colours(tmp_path):
    truth = stubs.tree(tmp_path, {'train': 1}, count=16)
    config = stubs.dataset('SynthiaSeqsDataset', tmp_path, metainfo=dict(classes=('car', 'road')))
    data, (label,) = labels(config)
    ids = truth['train']['train0.png']
    np.testing.assert_array_equal(label, np.select([ids == 8, ids == 3], [0, 1], 255))
    assert data.metainfo['palette'] == [
        SynthiaSeqsDataset.METAINFO['palette'][PAPER.index(name)] for name in ('car', 'road')
    ]


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="'paper', 'authors'"):
        SynthiaSeqsDataset(protocol='cityscapes', lazy_init=True)
    with pytest.raises(ValueError, match='tram'):
        SynthiaSeqsDataset(metainfo=dict(classes=('tram',)), lazy_init=True)


@each_dataset
def test_files_are_checked_when_they_are_listed(tmp_path, name):
    suffix = available_datasets()[name](lazy_init=True).img_suffix
    config = stubs.dataset(name, tmp_path)
    with pytest.raises(FileNotFoundError, match='Set data_root'):
        DATASETS.build(config)
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='Set data_root'):
        DATASETS.build(config)
    stubs.tree(tmp_path, {'train': 3}, 2, suffix)
    assert len(DATASETS.build(config)) == 3
    label = tmp_path / 'annotations' / 'train' / 'train1.png'
    label.write_bytes(b'')
    with pytest.raises(ValueError, match=r'annotations/train/train1\.png: .*0 bytes'):
        DATASETS.build(config)
    label.unlink()
    with pytest.raises(FileNotFoundError, match=r'annotations/train/train1\.png'):
        DATASETS.build(config)
    label.symlink_to(label)
    with pytest.raises(ValueError, match=r'annotations/train/train1\.png: cannot be read'):
        DATASETS.build(config)
    label.unlink()
    image = (tmp_path / 'images' / 'train' / 'train1').with_suffix(suffix)
    picture = image.read_bytes()
    stubs.symlink_loop(image)
    with pytest.raises(ValueError, match=f'images/train/train1{suffix}: cannot be read'):
        DATASETS.build(config)
    image.unlink()
    image.write_bytes(picture)
    label.mkdir()
    with pytest.raises(ValueError, match=r'annotations/train/train1\.png: not a file'):
        DATASETS.build(config)


def test_images_without_labels_can_be_listed(tmp_path):
    stubs.tree(tmp_path, {'test': 2}, count=11)
    data = CamVidDataset(data_prefix=dict(img_path=str(tmp_path / 'images' / 'test')))
    assert len(data) == 2


class Scratches(CheckedSegDataset):
    METAINFO: ClassVar[dict] = dict(classes=('metal', 'scratch'))


@pytest.mark.parametrize(
    ('dataset', 'cure'),
    [
        (VirtualKitti2Dataset, 'python tools/convert_dataset.py virtual-kitti RAW --out '),
        (Scratches, 'docs/datasets.md says where it comes from'),
    ],
)
def test_a_missing_tree_is_named_with_the_command_that_makes_it(tmp_path, dataset, cure):
    with pytest.raises(FileNotFoundError, match=rf'No image folder {tmp_path}/images.*{cure}'):
        dataset(data_root=str(tmp_path), data_prefix=dict(img_path='images'))


def test_the_dataset_of_the_docs_trains_as_pasted(tmp_path, monkeypatch):
    text = (ROOT / 'docs/datasets.md').read_text()
    module, base, leaf = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    monkeypatch.setattr(DATASETS, '_module_dict', dict(DATASETS._module_dict))
    package = tmp_path / 'configs'
    (package / '_base_/datasets').mkdir(parents=True)
    runtime = 'default_runtime.py', 'dataloaders.py'
    for name in ('models', 'schedules', 'losses', *runtime, 'datasets/camvid.py'):
        (package / '_base_' / name).symlink_to(BASES.parent / name)
    (package / '_base_/datasets/cracks.py').write_text(base)
    (package / 'recall').mkdir()
    (package / 'recall/deeplabv3_r18_cracks.py').write_text(leaf)
    exec(module.replace('from .checked', 'from mmseg_recall.datasets.checked'), {'__name__': 'a'})
    config = Config.fromfile(package / 'recall/deeplabv3_r18_cracks.py')
    write_tree(config, tmp_path)
    shrink(config, tmp_path, tmp_path / 'work')
    runner = RUNNERS.build(config)
    runner.train()
    assert runner.train_dataloader.dataset.metainfo['classes'] == ('surface', 'crack')
    assert runner.message_hub.get_scalar('train/loss').current() > 0
