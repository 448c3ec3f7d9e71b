import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS, HOOKS
from PIL import ExifTags, Image, PngImagePlugin
from torch import nn

from mmseg_recall.datasets.labels import count_classes, items, read_label
from mmseg_recall.files import image_header
from mmseg_recall.hooks import check_dataset as module
from mmseg_recall.losses import InverseFrequencyLoss

from . import stubs

NAME = 'rue à gauche.png'


def bad_size(path):
    stubs.write(path, np.zeros((16, 20), np.uint8))


def bad_mode(path):
    stubs.write(path, np.zeros((16, 24, 3), np.uint8))


def bad_depth(path):
    # Stock mmseg casts 16 bits to 8, which would make 259 a 3.
    stubs.write(path, np.full((16, 24), 259, np.uint16))


def bad_ids(path):
    stubs.write(path, np.full((16, 24), 77, np.uint8))


def runner(tmp_path, type_='BaseSegDataset'):
    """What the hook uses of a runner."""
    extra = {}
    if type_ == 'BaseSegDataset':
        extra = dict(img_suffix='.png', metainfo=dict(classes=('a', 'b', 'c')))

    def loop(split):
        data = DATASETS.build(stubs.dataset(type_, tmp_path / 'data', split, **extra))
        return SimpleNamespace(dataloader=SimpleNamespace(dataset=data))

    work_dir = tmp_path / 'work'
    work_dir.mkdir(exist_ok=True)
    return SimpleNamespace(
        train_loop=loop('train'),
        val_loop=loop('val'),
        work_dir=str(work_dir),
        model=nn.Module(),
        cfg={},
    )


def make(tmp_path):
    stubs.tree(tmp_path / 'data', {'train': 3, 'val': 2}, count=3)
    for split in ('train', 'val'):
        stubs.write(tmp_path / 'data' / 'images' / split / NAME, np.zeros((16, 24, 3), np.uint8))
        stubs.write(tmp_path / 'data' / 'annotations' / split / NAME, np.zeros((16, 24), np.uint8))


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(
    ('spoil', 'error', 'words'),
    [
        (stubs.missing, FileNotFoundError, 'missing'),
        (stubs.truncated, ValueError, 'truncated'),
        (stubs.damaged, ValueError, 'damaged'),
        (stubs.empty, ValueError, '0 bytes'),
        (stubs.folder, ValueError, 'cannot be read'),
        (stubs.symlink_loop, ValueError, 'cannot be read'),
        (stubs.bomb, ValueError, 'cannot load it'),
        (bad_size, ValueError, '20x16 pixels'),
        (bad_mode, ValueError, 'single-channel'),
        (bad_depth, ValueError, 'found 259'),
        (bad_ids, ValueError, r'unknown ids \[77\]'),
    ],
)
def test_a_bad_label_is_named_before_training(tmp_path, split, spoil, error, words):
    make(tmp_path)
    path = tmp_path / 'data' / 'annotations' / split / NAME
    spoil(path)
    hook = HOOKS.build(dict(type='CheckDatasetHook'))
    with pytest.raises(error, match=words) as caught:
        hook.before_train(runner(tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    'spoil',
    [
        *(stubs.missing, stubs.truncated, stubs.damaged, stubs.empty),
        *(stubs.folder, stubs.symlink_loop, stubs.bomb),
    ],
)
def test_a_bad_image_is_named_before_training(tmp_path, spoil):
    make(tmp_path)
    path = tmp_path / 'data' / 'images' / 'train' / NAME
    state = runner(tmp_path)
    spoil(path)
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        HOOKS.build(dict(type='CheckDatasetHook')).before_train(state)
    assert str(path) in str(caught.value)


def test_a_truncated_jpeg_is_named(tmp_path):
    path = stubs.write(tmp_path / 'a.jpg', np.zeros((64, 64, 3), np.uint8))
    assert image_header(path.read_bytes(), path) == ((64, 64), 'RGB')
    stubs.truncated(path)
    with pytest.raises(ValueError, match=r'a\.jpg: truncated'):
        image_header(path.read_bytes(), path)


def test_a_restart_reads_only_what_has_changed(tmp_path, monkeypatch):
    make(tmp_path)
    read = []

    def count(data, *args):
        read.append(len(data))
        return count_classes(data, *args)

    monkeypatch.setattr(module, 'count_classes', count)
    hook = HOOKS.build(dict(type='CheckDatasetHook'))
    hook.before_train(runner(tmp_path))
    assert read == [4, 3]
    hook.before_train(runner(tmp_path))
    assert read == [4, 3]
    bad_ids(tmp_path / 'data' / 'annotations' / 'val' / NAME)
    for _ in range(2):
        with pytest.raises(ValueError, match=r'\[77\]'):
            hook.before_train(runner(tmp_path))
    assert read == [4, 3, 3, 3]


@pytest.mark.parametrize('content', [b'', b'\xff', b'{"a": 1}', b'3', b'[' * 100_000])
def test_a_damaged_memory_of_the_check_is_not_believed(tmp_path, content):
    make(tmp_path)
    state = runner(tmp_path)
    cache = Path(state.work_dir) / module.CheckDatasetHook.CACHE
    cache.write_bytes(content)
    hook = HOOKS.build(dict(type='CheckDatasetHook'))
    hook.before_train(state)
    assert len(json.loads(cache.read_text())) == 2
    cache.write_bytes(content)
    bad_ids(tmp_path / 'data' / 'annotations' / 'val' / NAME)
    with pytest.raises(ValueError, match=r'\[77\]'):
        hook.before_train(state)


def test_void_and_reserved_ids_are_no_error_where_the_dataset_maps_them(tmp_path):
    stubs.tree(tmp_path / 'data', {'train': 2, 'val': 2}, count=16)
    hook = HOOKS.build(dict(type='CheckDatasetHook'))
    hook.before_train(runner(tmp_path, 'SynthiaSeqsDataset'))
    bad_ids(tmp_path / 'data' / 'annotations' / 'train' / 'train0.png')
    with pytest.raises(ValueError, match=r'train0\.png: unknown ids \[77\]'):
        hook.before_train(runner(tmp_path, 'SynthiaSeqsDataset'))


def test_a_pipeline_without_labels_is_an_error(tmp_path):
    make(tmp_path)
    state = runner(tmp_path)
    state.train_loop.dataloader.dataset.pipeline.transforms.pop(1)
    with pytest.raises(ValueError, match='LoadAnnotations'):
        HOOKS.build(dict(type='CheckDatasetHook')).before_train(state)


def test_class_counts_of_another_data_set_are_refused(tmp_path):
    make(tmp_path)
    path = tmp_path / 'class_counts.json'
    for classes, refused in [('abc', False), ('acb', True)]:
        path.write_text(json.dumps(dict(classes=list(classes), pixels=[1, 2, 3])))
        run = runner(tmp_path)
        run.model = nn.ModuleList([InverseFrequencyLoss(class_counts=path)])
        with pytest.raises(ValueError, match="1 is 'c' there") if refused else nullcontext():
            HOOKS.build(dict(type='CheckDatasetHook')).before_train(run)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize(
    ('loader', 'turned'),
    [
        ({}, True),
        (dict(imdecode_backend='pillow'), True),
        (dict(color_type='color_ignore_orientation'), False),
        (dict(color_type='unchanged'), False),
    ],
)
def test_a_photograph_is_turned_as_the_loader_turns_it(tmp_path, suffix, loader, turned):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image, label = (tmp_path / 'data' / kind / 'train' for kind in ('images', 'annotations'))
    image.mkdir(parents=True)
    Image.new('RGB', (60, 40)).save(image / f'a{suffix}', exif=exif)
    pipeline = [dict(type='LoadImageFromFile', **loader), *stubs.PIPELINE[1:]]
    config = stubs.dataset('BaseSegDataset', tmp_path / 'data', img_suffix=suffix)
    data = DATASETS.build({**config, 'metainfo': dict(classes='ab'), 'pipeline': pipeline})
    for shape, fits in (((60, 40), turned), ((40, 60), not turned)):
        stubs.write(label / 'a.png', np.zeros(shape, np.uint8))
        assert (data[0]['inputs'].shape[1:] == shape) == fits
        with nullcontext() if fits else pytest.raises(ValueError, match='and its image'):
            count_classes(data)


def test_the_orientation_of_a_png_is_read_without_decoding_it(tmp_path, monkeypatch):
    make(tmp_path)
    item, *_ = items(runner(tmp_path).train_loop.dataloader.dataset)

    def decode(*args):
        raise AssertionError('Pillow decodes a PNG for this')

    monkeypatch.setattr(PngImagePlugin.PngImageFile, 'getexif', decode)
    read_label(item)


def test_damaged_exif_data_do_not_matter(tmp_path):
    path = tmp_path / 'a.jpg'
    Image.new('RGB', (60, 40)).save(path, exif=b'Exif\0\0nothing')
    assert image_header(path.read_bytes(), path) == ((60, 40), 'RGB')


@pytest.mark.parametrize(
    'error', [OSError(28, 'No space left on device'), TypeError('of a loader'), cv2.error('depth')]
)
def test_any_error_stops_all_ranks(tmp_path, monkeypatch, error):
    make(tmp_path)
    sent = []
    monkeypatch.setattr(module, 'broadcast_object_list', sent.append)

    def broken(*args):
        raise error

    monkeypatch.setattr(module, 'check_dataset', broken)
    with pytest.raises(type(error)):
        HOOKS.build(dict(type='CheckDatasetHook')).before_train(runner(tmp_path))
    assert sent == [[error]]
