import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmseg_recall
from mmseg_recall.datasets.convert_synthia import (
    CAMERAS,
    SIDES,
    convert_synthia_seqs,
    find_pairs,
    split_names,
)

from . import stubs

NAMES = ['000000.png', '000001.png', 'street 2.png', 'straße.png']
LABELS = Path('GT', 'LABELS', 'Stereo_Right', 'Omni_L')


def test_split_has_the_paper_s_sizes(tmp_path):
    for side in SIDES:
        for camera in CAMERAS:
            folder = tmp_path / 'RGB' / side / camera
            folder.mkdir(parents=True)
            for index in range(787):
                (folder / f'{index:06d}.png').touch()
    splits = [pair.split for pair in find_pairs(tmp_path)]
    assert {name: splits.count(name) for name in ('train', 'val', 'test')} == {
        'train': 4400,
        'val': 624,
        'test': 1272,
    }


def test_split_is_python_s_shuffle_of_the_sorted_names():
    names = [f'{index:06d}.png' for index in range(787)]
    split = split_names(names)
    shuffled = list(names)
    random.seed(0)
    random.shuffle(shuffled)
    assert split['train'] + split['val'] + split['test'] == shuffled
    assert split_names(reversed(names)) == split
    # Pinned, so that neither a later Python nor a later edit moves frames between the splits.
    assert split['val'][:3] == ['000228.png', '000760.png', '000163.png']


def test_conversion_keeps_ids_and_images(tmp_path):
    truth = stubs.raw_synthia(tmp_path / 'raw', NAMES)
    convert_synthia_seqs(tmp_path / 'raw', tmp_path / 'out')
    labels = {path.name: path for path in (tmp_path / 'out' / 'annotations').rglob('*.png')}
    assert labels.keys() == truth.keys()
    for name, path in labels.items():
        label = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, truth[name])
        image = tmp_path / 'out' / 'images' / path.parent.name / name
        side, rest = name.split('_Omni_')
        raw = tmp_path / 'raw' / 'RGB' / side / f'Omni_{rest[0]}' / rest[2:]
        assert image.read_bytes() == raw.read_bytes()
    assert len(list((tmp_path / 'out').rglob('*.*'))) == 2 * len(truth)


def bad_missing(path):
    path.unlink()


def bad_truncated(path):
    stubs.truncate(path)


def bad_empty(path):
    path.write_bytes(b'')


def bad_damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


def bad_size(path):
    stubs.write(path, np.zeros((8, 8, 3), np.uint16))


def bad_mode(path):
    stubs.write(path, np.zeros((16, 24, 3), np.uint8))


def bad_grey(path):
    stubs.write(path, np.zeros((16, 24), np.uint16))


def bad_ids(path):
    label = np.zeros((16, 24, 3), np.uint16)
    label[3, 4, 2], label[5, 6, 2] = 16, 300
    stubs.write(path, label)


@pytest.mark.parametrize(
    ('spoil', 'error', 'words'),
    [
        (bad_missing, FileNotFoundError, 'no label'),
        (bad_truncated, ValueError, 'truncated'),
        (bad_empty, ValueError, '0 bytes'),
        (bad_damaged, ValueError, 'damaged'),
        (bad_size, ValueError, '8x8 pixels'),
        (bad_mode, ValueError, '16-bit RGB'),
        (bad_grey, ValueError, '16-bit RGB'),
        (bad_ids, ValueError, r'unknown class ids \[16, 300\]'),
    ],
)
def test_a_bad_label_is_named_and_mending_it_is_enough(tmp_path, spoil, error, words):
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    stubs.raw_synthia(raw, NAMES)
    path = raw / LABELS / 'straße.png'
    good = path.read_bytes()
    spoil(path)
    with pytest.raises(error, match=words) as caught:
        convert_synthia_seqs(raw, out)
    assert str(path) in str(caught.value)
    assert not out.exists()
    path.write_bytes(good)
    convert_synthia_seqs(raw, out)
    assert len(list(out.rglob('*.png'))) == 2 * 8 * len(NAMES)


def test_a_truncated_image_is_named(tmp_path):
    stubs.raw_synthia(tmp_path / 'raw', NAMES)
    path = tmp_path / 'raw' / 'RGB' / 'Stereo_Left' / 'Omni_F' / 'street 2.png'
    stubs.truncate(path)
    with pytest.raises(ValueError, match='truncated') as caught:
        convert_synthia_seqs(tmp_path / 'raw', tmp_path / 'out')
    assert str(path) in str(caught.value)


def test_a_missing_view_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='Omni_B'):
        convert_synthia_seqs(tmp_path, tmp_path / 'out')


def test_a_finished_tree_is_not_overwritten(tmp_path):
    stubs.raw_synthia(tmp_path / 'raw', NAMES)
    convert_synthia_seqs(tmp_path / 'raw', tmp_path / 'out')
    with pytest.raises(FileExistsError, match='remove it'):
        convert_synthia_seqs(tmp_path / 'raw', tmp_path / 'out')


def test_a_killed_run_is_completed_by_running_it_again(tmp_path):
    raw, out, partial = tmp_path / 'raw', tmp_path / 'out', tmp_path / 'out.partial'
    truth = stubs.raw_synthia(raw, [f'{index:06d}.png' for index in range(8)])
    # Reading the last label blocks, as nobody writes to the pipe: the run cannot get to its end.
    last = find_pairs(raw)[-1].raw_label
    label = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    root = Path(mmseg_recall.__file__).parents[1]
    run = subprocess.Popen(
        [
            sys.executable,
            root / 'tools' / 'dataset_converters' / 'synthia_seqs.py',
            raw,
            '--out',
            out,
        ],
        env={**os.environ, 'PYTHONPATH': str(root)},
        start_new_session=True,
    )
    while run.poll() is None and len(list(partial.rglob('annotations/**/*.png'))) < 20:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not out.exists()
    # The image is linked after the label is written, so a pair with its image is finished.
    labels = [
        partial / 'annotations' / path.relative_to(partial / 'images')
        for path in partial.rglob('images/**/*.png')
    ]
    finished = {path: path.stat().st_ino for path in labels}
    assert finished
    # What a kill may leave besides: the beginning of a file, and a file of some other tree.
    (partial / 'annotations' / 'train' / '.Stereo_Left_Omni_F_000001.png.tmp').write_bytes(b'\x89P')
    stubs.write(partial / 'images' / 'train' / 'stray.png', np.zeros((2, 2), np.uint8))

    last.unlink()
    last.write_bytes(label)
    convert_synthia_seqs(raw, out)
    assert {path.name for path in out.rglob('annotations/**/*.png')} == truth.keys()
    assert sum(path.is_file() for path in out.rglob('*')) == 2 * len(truth)
    for path in out.rglob('annotations/**/*.png'):
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), truth[path.name])
    for path, inode in finished.items():
        assert (out / path.relative_to(partial)).stat().st_ino == inode
