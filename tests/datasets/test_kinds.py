"""Rows N3, N4, N6, N7, D1 and D2: datasets of people, each as plain mmseg trains on it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmseg.datasets import BaseSegDataset, MultiImageMixDataset
from mmseg.registry import HOOKS
from torch import nn
from torch.utils.data import Subset

from mmseg_recall.datasets.class_statistics import class_statistics
from mmseg_recall.datasets.labels import count_classes
from tests.tools.run import ROOT, run

from . import stubs
from .kinds import (
    CLASSES,
    HEIGHT,
    LABEL,
    SIZE,
    WIDTH,
    Crop,
    Drawn,
    Listed,
    LoadIds,
    MapMask,
    ReadArray,
    Stream,
    Whole,
    of_files,
)

IMAGE = np.full((*SIZE, 3), 128, np.uint8)
STOCK = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
GREY = dict(type='LoadImageFromFile', color_type='unchanged')
GIANT = np.zeros((13_400, 13_400), np.uint8)
OWN = ReadArray(), LoadIds()
THIRDS = [WIDTH * HEIGHT // 3] * 3


def listed(root):
    stubs.write(root / '0.png', IMAGE)
    stubs.write(root / 'a.png', LABEL)
    files = [dict(img_path=str(root / '0.png'), seg_map_path=str(root / 'a.png'))]
    return Listed(files, pipeline=[ReadArray(), LoadIds()])


def in_an_outer_pipeline(root):
    inner = of_files(root, IMAGE, LABEL, ('.png', '.png'), STOCK[0])
    return MultiImageMixDataset(ConcatDataset([inner]), [STOCK[1], dict(type='PackSegInputs')])


JUDGED = {
    'stock': lambda root: of_files(root, IMAGE, LABEL, ('.png', '.png'), *STOCK),
    'multi-band image': lambda root: of_files(
        root, np.zeros((*SIZE, 7), np.float32), LABEL, ('.npy', '.png'), ReadArray(), STOCK[1]
    ),
    'float TIFF': lambda root: of_files(
        root, np.zeros(SIZE, np.float32), LABEL, ('.tif', '.png'), GREY, STOCK[1]
    ),
    'planar TIFF': lambda root: of_files(
        root, np.zeros((*SIZE, 5), np.uint16), LABEL, ('.tif', '.png'), ReadArray(), STOCK[1]
    ),
    '16-bit label': lambda root: of_files(
        root, IMAGE, LABEL.astype(np.uint16) * 1000, ('.png', '.png'), *OWN
    ),
    '16-bit label of small ids': lambda root: of_files(
        root, IMAGE, LABEL.astype(np.uint16), ('.png', '.png'), *STOCK
    ),
    'RGB label': lambda root: of_files(
        root, IMAGE, np.stack([LABEL * 100] * 3, -1), ('.png', '.png'), *OWN
    ),
    'array label': lambda root: of_files(root, IMAGE, LABEL, ('.png', '.npy'), *OWN),
    'loaders in a wrapper': lambda root: of_files(
        root, IMAGE, LABEL, ('.png', '.png'), dict(type='RandomApply', transforms=STOCK, prob=1.0)
    ),
    'loaders in wrappers of wrappers': lambda root: of_files(
        root, IMAGE, LABEL, ('.png', '.png'), STOCK[0],
        dict(type='RandomChoice', transforms=[[dict(type='Compose', transforms=STOCK[1:])]]),
    ),
    'loader in an outer pipeline': in_an_outer_pipeline,
    "mmengine's BaseDataset": listed,
    "torch's Dataset": lambda root: Whole(LABEL),
    "torch's Subset": lambda root: Subset(
        of_files(root, IMAGE, LABEL, ('.png', '.png'), *STOCK), [0, 0]
    ),
}  # fmt: skip


def check(dataset, folder: Path) -> list[str]:
    """What the hook warns of."""
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    runner = SimpleNamespace(
        train_loop=loop, val_loop=None, model=nn.Module(), cfg={}, work_dir=str(folder)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        HOOKS.build(dict(type='CheckDatasetHook')).before_train(runner)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


@pytest.mark.parametrize('kind', JUDGED)
def test_what_mmseg_trains_on_passes_and_is_counted(tmp_path, kind):
    dataset = JUDGED[kind](tmp_path)
    assert check(dataset, tmp_path) == []
    count = count_classes(dataset)
    assert count.pixels.tolist() == [count.items * third for third in THIRDS]
    assert count.images.tolist() == [count.items] * 3


@pytest.mark.slow
def test_a_giant_image_passes(tmp_path):
    """Above the 178,956,970 pixels at which Pillow takes an image for an attack."""
    labels = dict(type='LoadAnnotations', imdecode_backend='cv2')
    dataset = of_files(tmp_path, GIANT, GIANT, ('.png', '.png'), GREY, labels)
    (message,) = check(dataset, tmp_path)
    assert "no label has a pixel of 'b' (1), 'c' (2)" in message


@pytest.mark.parametrize(
    ('dataset', 'reason'),
    [
        (Stream(), 'Stream has no length'),
        (Listed([dict(img_path='a')], metainfo=dict(classes=None)), 'names no classes'),
        (Listed([dict(img_path=__file__)], pipeline=[Crop()]), 'has no label'),
    ],
    ids=['iterable', 'no classes', 'no label'],
)
def test_what_cannot_be_judged_is_skipped_with_one_warning(tmp_path, dataset, reason):
    (message,) = check(dataset, tmp_path)
    assert message.startswith('The training data are not checked: ') and reason in message


def test_items_of_an_own_making_are_taken_whole(tmp_path):
    assert count_classes(Drawn(pipeline=[])).pixels.tolist() == [0, 0, 2 * WIDTH * HEIGHT]


@pytest.mark.parametrize(
    ('label', 'suffix', 'words'),
    [
        (LABEL.astype(np.uint16) * 1000, '.png', 'found 2000, of which LoadAnnotations keeps'),
        (np.stack([LABEL] * 3, -1), '.png', 'expected single-channel ids, not 3 channels'),
        (LABEL, '.npy', 'LoadAnnotations cannot load it'),
    ],
)
def test_what_the_stock_loader_reads_wrongly_is_an_error(tmp_path, label, suffix, words):
    dataset = of_files(tmp_path, IMAGE, label, ('.png', suffix), *STOCK)
    with pytest.raises(ValueError, match=rf'annotations/train/0{suffix}: .*{words}'):
        check(dataset, tmp_path)


MASK = np.where(LABEL == 1, 255, 0).astype(np.uint8)


def masks(root, *pipeline, label=MASK, **kwargs):
    pair = of_files(root, IMAGE, label, ('.png', '.png'), *STOCK)
    return BaseSegDataset(
        data_root=str(root), data_prefix=pair.data_prefix, img_suffix='.png',
        pipeline=[*STOCK, *pipeline], **{'metainfo': dict(classes=('road', 'crack')), **kwargs},
    )  # fmt: skip


@pytest.mark.parametrize(
    'pipeline',
    [
        [MapMask()],
        [dict(type='RandomCrop', crop_size=(8, 8)), MapMask()],
        [dict(type='RandomApply', transforms=[MapMask()], prob=1.0)],
        [dict(type='Resize', scale=(12, 8)), dict(type='Compose', transforms=[MapMask()])],
    ],
    ids=['after the loader', 'after a crop', 'in a wrapper', 'in a pipeline'],
)
def test_counts_are_those_of_the_ids_that_are_trained(tmp_path, pipeline):
    count = count_classes(masks(tmp_path, *pipeline))
    assert count.pixels.tolist() == [int((MASK == 0).sum()), int((MASK == 255).sum())]
    assert count.warnings == []


ABSENT = {
    'masks of 0 and 255': (
        dict(),
        r"'crack' \(1\).*hold \[0, 255\] only, and \[255\] is ignored: .*mapped to 0 and 1",
    ),
    'reduce_zero_label of two classes': (
        dict(label=LABEL % 2, reduce_zero_label=True),
        r"'crack' \(1\).*set it to False where 0 is a class",
    ),
    'masks and reduce_zero_label': (
        dict(reduce_zero_label=True),
        r"'road' \(0\), 'crack' \(1\).*set it to False",
    ),
    'ids from 1': (dict(label=LABEL % 2 + 1, metainfo=CLASSES), r"'a' \(0\).*begin at 1"),
    'really absent': (
        dict(metainfo=dict(classes=('road', 'crack', 'never')), label=LABEL % 2),
        r"'never' \(2\), which cannot be learnt$",
    ),
}


@pytest.mark.parametrize(('options', 'message'), ABSENT.values(), ids=ABSENT)
def test_a_class_without_a_pixel_is_named_with_the_usual_reason(tmp_path, options, message):
    dataset = masks(tmp_path, **options)
    started_again = deepcopy(dataset)
    (said,) = check(dataset, tmp_path)
    assert re.search(message, said)
    assert check(started_again, tmp_path) == []


def loaders(train, **others):
    return Config(dict(train_dataloader=dict(dataset=train), **others))


def stock(root, **kwargs):
    return stubs.dataset(
        'BaseSegDataset', root, **{'img_suffix': '.png', 'metainfo': CLASSES, **kwargs}
    )


def empty_folder(root):
    (root / 'images/train').mkdir(parents=True)
    return stock(root)


BROKEN = {
    'empty': (empty_folder, 'images/train.*no image with a name of its suffix'),
    'another suffix': (lambda root: stock(root, img_suffix='.tif'), r'\.tif.*no image with a name'),
    'no ann_file': (lambda root: stock(root, ann_file='lists/train.txt'), r'lists/train\.txt'),
    'empty ann_file': (lambda root: stock(root, ann_file='empty.txt'), r'empty\.txt.*no image'),
    'no label prefix': (
        lambda root: {**stock(root), 'data_prefix': dict(img_path='images/train')},
        'has no label|cannot load it',
    ),
    'unregistered': (lambda root: dict(type='Scenes'), 'Scenes'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_a_training_set_that_cannot_be_read_is_named(tmp_path, kind):
    (tmp_path / 'empty.txt').touch()
    make, words = BROKEN[kind]
    if kind != 'empty':
        stubs.tree(tmp_path, {'train': 1}, 3)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        class_statistics(loaders(make(tmp_path)))
    assert 'train_dataloader' in str(error.value) or 'images/train' in str(error.value)


@pytest.mark.parametrize('kind', ['empty', 'unregistered', 'no ann_file'])
def test_an_evaluation_set_that_cannot_be_read_is_warned_of(tmp_path, kind):
    stubs.tree(tmp_path / 'good', {'train': 1}, 3)
    broken = BROKEN[kind][0](tmp_path / 'bad')
    config = loaders(stock(tmp_path / 'good'), test_dataloader=dict(dataset=broken))
    with pytest.warns(UserWarning, match='Not compared with test_dataloader'):
        assert class_statistics(config)['images'] == 1


def test_no_training_loader_is_an_error():
    with pytest.raises(ValueError, match='no train_dataloader'):
        class_statistics(Config(dict(model=dict())))


def test_a_dataset_without_prefixes_is_counted(tmp_path):
    stubs.write(tmp_path / 'x/0.png', LABEL)
    files = [dict(img_path=None, seg_map_path=str(tmp_path / 'x/0.png'))] * 2
    train = dict(type=Listed, files=files, pipeline=[LoadIds()])
    assert class_statistics(loaders(train))['pixels'] == [2 * third for third in THIRDS]


def test_datasets_of_five_and_of_two_classes_are_counted_together(tmp_path):
    parts = []
    for number, label in ((2, LABEL % 2), (5, LABEL + 2)):
        names = dict(classes=tuple('abcde'[:number]))
        parts.append(masks(tmp_path / str(number), label=label, metainfo=names))
    count = count_classes(ConcatDataset(parts, ignore_keys=['classes', 'palette']))
    third = THIRDS[0]
    ones = int((LABEL % 2).sum())
    assert count.classes == [*'abcde']
    assert count.pixels.tolist() == [3 * third - ones, ones, third, third, third]


def test_the_tool_prints_shares_and_warnings(tmp_path):
    stubs.write(tmp_path / 'images/train/0.png', IMAGE)
    stubs.write(tmp_path / 'images/train/1.png', IMAGE)
    stubs.write(tmp_path / 'annotations/train/0.png', np.zeros(SIZE, np.uint8))
    half = np.zeros(SIZE, np.uint8)
    half[: HEIGHT // 2] = 1
    half[-HEIGHT // 4 :] = 255
    stubs.write(tmp_path / 'annotations/train/1.png', half)
    config, out = tmp_path / 'config.py', tmp_path / 'counts.json'
    config.write_text(f'train_dataloader = dict(dataset={stock(tmp_path)!r})\n')
    shown = run(ROOT / 'tools/class_statistics.py', config, '--out', out, COLUMNS='100')
    rows = {row[0]: row[1:] for row in re.findall(r'│ (\S+) +│ ([\d.]+) +│ ([\d.]*) +│', shown)}
    assert rows['a'] == ('62.5', '100') and rows['b'] == ('25', '50') and rows['c'] == ('0', '0')
    assert rows['(ignored)'] == ('12.5', '')
    assert "Warning: no label has a pixel of 'c' (2)" in shown
    assert json.loads(out.read_text())['class_images'] == [2, 1, 0]


SCRIPT = """
print('started')
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import HOOKS
from torch import nn
import mmseg_recall


class LoadOwn(BaseTransform):
    def transform(self, results):
        results['gt_seg_map'] = np.ones((16, 24), np.uint8)
        return results


root = sys.argv[1]
data = BaseSegDataset(
    data_root=root, data_prefix=dict(img_path='images/train'), img_suffix='.png',
    metainfo=dict(classes=('a', 'b')), pipeline=[LoadOwn()],
)
loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
hook = HOOKS.build(dict(type='CheckDatasetHook', _scope_='mmseg'))
hook.before_train(
    SimpleNamespace(train_loop=loop, val_loop=None, model=nn.Module(), cfg={}, work_dir=root)
)
print('checked')
"""


@pytest.mark.slow
@pytest.mark.parametrize('how', ['a script', 'standard input', 'exec, as a notebook does'])
def test_a_script_without_a_main_guard_starts_once(tmp_path, how):
    """Its own loader is defined in it, where another process would not find it."""
    stubs.tree(tmp_path, {'train': 40}, 2)
    script = tmp_path / 'train.py'
    script.write_text(SCRIPT)
    command = {
        'a script': [script, tmp_path],
        'standard input': ['-', tmp_path],
        'exec, as a notebook does': ['-c', 'import sys; exec(open(sys.argv[2]).read())', tmp_path],
    }[how]
    ran = subprocess.run(
        [sys.executable, *map(str, command), *([str(script)] if 'exec' in how else [])],
        input=SCRIPT if how == 'standard input' else None,
        env={'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.split() if line in ('started', 'checked')] == [
        'started',
        'checked',
    ]
