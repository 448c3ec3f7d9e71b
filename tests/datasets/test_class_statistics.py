import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

import mmseg_recall
from mmseg_recall.datasets.camvid import CamVidDataset
from mmseg_recall.datasets.class_statistics import class_statistics, write_class_statistics

from . import stubs


def config_of(train, val=None, **kwargs):
    loaders = {'train_dataloader': dict(dataset=train)}
    if val is not None:
        loaders['val_dataloader'] = dict(dataset=val)
    return Config({**loaders, **kwargs})


def brute_force(labels, wanted):
    """Pixels of each class by a loop over all pixels."""
    pixels = [0] * len(wanted)
    for label in labels:
        for id_ in label.ravel().tolist():
            if id_ in wanted:
                pixels[wanted.index(id_)] += 1
    return pixels


@pytest.mark.parametrize(
    ('protocol', 'wanted'), [('paper', [*range(1, 13), 15]), ('authors', [*range(16)])]
)
def test_equal_to_a_brute_force_count(tmp_path, protocol, wanted):
    truth = stubs.tree(tmp_path, {'train': 5, 'val': 2}, count=16)
    config = config_of(
        stubs.dataset('SynthiaSeqsDataset', tmp_path, protocol=protocol),
        stubs.dataset('SynthiaSeqsDataset', tmp_path, 'val'),
    )
    statistics = class_statistics(config)
    assert statistics['pixels'] == brute_force(truth['train'].values(), wanted)
    assert statistics['images'] == 5
    assert len(statistics['classes']) == len(wanted)
    assert statistics['dataset'] == 'SynthiaSeqsDataset'


def test_the_type_may_be_the_class(tmp_path):
    stubs.tree(tmp_path, {'train': 2}, count=11)
    config = config_of(stubs.dataset(CamVidDataset, tmp_path), class_counts=str(tmp_path / 'a'))
    assert json.loads(write_class_statistics(config).read_text())['dataset'] == 'CamVidDataset'


def test_wrappers_count_what_an_epoch_draws(tmp_path):
    a = stubs.tree(tmp_path / 'a', {'train': 3}, count=11)['train'].values()
    b = stubs.tree(tmp_path / 'b', {'train': 2}, count=11)['train'].values()
    repeated = dict(
        type='RepeatDataset', times=3, dataset=stubs.dataset('CamVidDataset', tmp_path / 'b')
    )
    both = dict(
        type='ConcatDataset', datasets=[stubs.dataset('CamVidDataset', tmp_path / 'a'), repeated]
    )
    statistics = class_statistics(config_of(both))
    assert statistics['images'] == 9
    assert statistics['pixels'] == brute_force([*a, *b, *b, *b], [*range(11)])


def test_stock_dataset_with_reduced_zero_label(tmp_path):
    truth = stubs.tree(tmp_path, {'train': 2}, count=4)['train'].values()
    train = stubs.dataset(
        'BaseSegDataset',
        tmp_path,
        img_suffix='.png',
        reduce_zero_label=True,
        metainfo=dict(classes=('a', 'b', 'c')),
    )
    assert class_statistics(config_of(train))['pixels'] == brute_force(truth, [1, 2, 3])


def test_file_is_the_config_s_and_written_whole(tmp_path):
    truth = stubs.tree(tmp_path, {'train': 2}, count=11)['train'].values()
    path = tmp_path / 'new' / 'counts.json'
    config = config_of(stubs.dataset('CamVidDataset', tmp_path), class_counts=str(path))
    assert write_class_statistics(config) == path
    assert json.loads(path.read_text())['pixels'] == brute_force(truth, [*range(11)])
    assert list(path.parent.iterdir()) == [path]
    config.class_counts = None
    with pytest.raises(ValueError, match='--out'):
        write_class_statistics(config)


def test_training_files_that_evaluation_reads_are_refused(tmp_path):
    stubs.tree(tmp_path, {'train': 2, 'part': 2}, count=11)
    part = stubs.dataset('CamVidDataset', tmp_path, 'part')
    both = dict(type='ConcatDataset', datasets=[stubs.dataset('CamVidDataset', tmp_path), part])
    with pytest.raises(ValueError, match='2 of the images of val_dataloader are training images'):
        class_statistics(config_of(both, part))
    with pytest.raises(ValueError, match='test_dataloader'):
        class_statistics(config_of(both, test_dataloader=dict(dataset=part)))
    statistics = class_statistics(config_of(both, part), allow_evaluation_files=True)
    assert statistics['images'] == 4


def test_another_name_for_the_same_files_is_refused(tmp_path):
    stubs.tree(tmp_path, {'part': 2}, count=11)
    for kind in ('images', 'annotations'):
        (tmp_path / kind / 'train').symlink_to(tmp_path / kind / 'part')
    config = config_of(
        stubs.dataset('CamVidDataset', tmp_path), stubs.dataset('CamVidDataset', tmp_path, 'part')
    )
    with pytest.raises(ValueError, match='2 of the images of val_dataloader'):
        class_statistics(config)


def test_copies_of_evaluation_images_are_refused_whatever_their_names_and_folders(tmp_path):
    stubs.tree(tmp_path, {'train': 3, 'val': 2}, count=11)
    pixels = cv2.imread(str(tmp_path / 'images' / 'val' / 'val1.png'))
    stubs.write(tmp_path / 'images' / 'train' / 'train2.png', pixels)
    train, val = (stubs.dataset('CamVidDataset', tmp_path, split) for split in ('train', 'val'))
    with pytest.raises(ValueError, match=r'1 of the images of val_dataloader .*train2\.png'):
        class_statistics(config_of(train, val))


@pytest.mark.parametrize('split', ['val', 'test', 'Validation', 'val/city'])
def test_training_files_named_for_evaluation_are_refused(tmp_path, split):
    """Without evaluation images; with them their pixels say what the name does not."""
    stubs.tree(tmp_path, {split: 2, 'other': 2}, count=11)
    train, other = (stubs.dataset('CamVidDataset', tmp_path, name) for name in (split, 'other'))
    with pytest.raises(ValueError, match='by its name'):
        class_statistics(config_of(train))
    assert class_statistics(config_of(train), allow_evaluation_files=True)['images'] == 2
    assert class_statistics(config_of(train, other))['images'] == 2


def test_an_annotation_file_named_for_evaluation_is_refused(tmp_path):
    stubs.tree(tmp_path, {'all': 2}, count=11)
    (tmp_path / 'lists').mkdir()
    for name in ('val', 'train'):
        (tmp_path / 'lists' / f'{name}.txt').write_text('all0\n')
    train = stubs.dataset('CamVidDataset', tmp_path, 'all', ann_file='lists/train.txt')
    assert class_statistics(config_of(train))['images'] == 1
    with pytest.raises(ValueError, match='lists/val, by its name'):
        class_statistics(config_of({**train, 'ann_file': 'lists/val.txt'}))


def test_a_folder_named_test_further_up_says_nothing(tmp_path):
    stubs.tree(tmp_path / 'test' / 'data', {'train': 2}, count=11)
    config = config_of(stubs.dataset('CamVidDataset', tmp_path / 'test' / 'data'))
    assert class_statistics(config)['images'] == 2


def test_an_evaluation_split_that_is_absent_is_named(tmp_path):
    stubs.tree(tmp_path, {'train': 2}, count=11)
    config = config_of(
        stubs.dataset('CamVidDataset', tmp_path), stubs.dataset('CamVidDataset', tmp_path, 'val')
    )
    with pytest.warns(UserWarning, match='val_dataloader'):
        assert class_statistics(config)['images'] == 2


def test_unknown_ids_name_the_first_file_and_the_ids(tmp_path):
    stubs.tree(tmp_path, {'train': 6}, count=11)
    for index, id_ in ((2, 11), (4, 99)):
        label = np.zeros((16, 24), np.uint8)
        label[0, :2] = id_, 200
        stubs.write(tmp_path / 'annotations' / 'train' / f'train{index}.png', label)
    with pytest.raises(ValueError, match=r'train2\.png: unknown ids \[11, 200\]'):
        class_statistics(config_of(stubs.dataset('CamVidDataset', tmp_path)))


def test_the_tool_takes_overrides_and_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    truth = stubs.tree(tmp_path / 'data', {'train': 2, 'val': 1}, count=11)['train'].values()
    tool = Path(mmseg_recall.__file__).parents[1] / 'tools' / 'class_statistics.py'
    config, out = tmp_path / 'config.py', tmp_path / 'counts.json'
    train = stubs.dataset('CamVidDataset', 'elsewhere')
    config.write_text(f'train_dataloader = dict(dataset={train!r})\n')

    def run(*options):
        where = f'train_dataloader.dataset.data_root={tmp_path / "data"}'
        command = [tool, config, '--out', out, '--cfg-options', where, *options]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in command])
        runpy.run_path(str(tool), run_name='__main__')

    run()
    counts = json.loads(out.read_text())
    assert counts['pixels'] == brute_force(truth, [*range(11)])
    assert counts['config'] == 'config.py'
    with pytest.raises(SystemExit) as stopped:
        run('train_dataloader.dataset.data_prefix.seg_map_path=annotations/val')
    assert stopped.value.code == 1
    assert 'annotations/val/train0.png' in capsys.readouterr().err
