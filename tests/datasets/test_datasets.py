import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_recall.datasets import CamVidDataset, SynthiaSeqsDataset, VirtualKitti2Dataset

from . import stubs

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
    for dataset in (SynthiaSeqsDataset, CamVidDataset, VirtualKitti2Dataset):
        palette = dataset.METAINFO['palette']
        assert len({tuple(colour) for colour in palette}) == len(dataset.METAINFO['classes'])


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


@pytest.mark.parametrize(
    ('type_', 'suffix'),
    [('SynthiaSeqsDataset', '.png'), ('CamVidDataset', '.png'), ('VirtualKitti2Dataset', '.jpg')],
)
def test_files_are_checked_when_they_are_listed(tmp_path, type_, suffix):
    config = stubs.dataset(type_, tmp_path)
    with pytest.raises(FileNotFoundError, match='dataset_converters'):
        DATASETS.build(config)
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='dataset_converters'):
        DATASETS.build(config)
    stubs.tree(tmp_path, {'train': 3}, 11, suffix)
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
