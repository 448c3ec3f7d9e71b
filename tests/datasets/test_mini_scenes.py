import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS

import mmseg_recall
from mmseg_recall.datasets.class_statistics import class_statistics
from mmseg_recall.datasets.convert import convert_dataset
from mmseg_recall.datasets.convert_synthia import (
    CAMERAS,
    SIDES,
    read_raw_label,
)
from mmseg_recall.datasets.mini_scenes import render_frame, write_mini_scenes
from mmseg_recall.datasets.synthia import SYNTHIA_IDS

from . import stubs
from .test_class_statistics import config_of


def test_layout_and_encoding_are_those_of_synthia_seqs(tmp_path):
    write_mini_scenes(tmp_path / 'raw', frames=2, width=64, height=48, seed=3)
    wanted = {
        f'{kind}/{side}/{camera}/{frame:06d}.png'
        for kind in ('RGB', 'GT/LABELS')
        for side in SIDES
        for camera in CAMERAS
        for frame in range(2)
    }
    found = {str(path.relative_to(tmp_path / 'raw')) for path in (tmp_path / 'raw').rglob('*.png')}
    assert found == wanted
    views = render_frame(1, 3, 64, 48)
    for side in SIDES:
        for camera in CAMERAS:
            image, label = views[f'{side}/{camera}']
            name = Path(side, camera, '000001.png')
            stored = cv2.imread(str(tmp_path / 'raw' / 'RGB' / name))
            np.testing.assert_array_equal(stored[..., ::-1], image)
            stored = cv2.imread(
                str(tmp_path / 'raw' / 'GT' / 'LABELS' / name), cv2.IMREAD_UNCHANGED
            )
            assert stored.dtype == np.uint16
            np.testing.assert_array_equal(stored[..., 2], label)


@pytest.mark.slow
def test_one_seed_gives_the_same_bytes_in_another_process(tmp_path):
    root = Path(mmseg_recall.__file__).parents[1]
    tool = root / 'tools' / 'render_mini_scenes.py'
    out = tmp_path / 'tool'
    subprocess.run(
        [sys.executable, tool, '--out', out, '--frames', '2', '--size', '64x48', '--seed', '5'],
        env={**os.environ, 'PYTHONPATH': str(root), 'PYTHONHASHSEED': '1'},
        check=True,
    )
    write_mini_scenes(tmp_path / 'here', frames=2, width=64, height=48, seed=5)
    files = sorted(path.relative_to(out) for path in out.rglob('*') if path.is_file())
    assert len(files) == 33
    for name in files:
        assert (out / name).read_bytes() == (tmp_path / 'here' / name).read_bytes()
    write_mini_scenes(tmp_path / 'other', frames=2, width=64, height=48, seed=6)
    name = 'RGB/Stereo_Left/Omni_F/000000.png'
    assert (out / name).read_bytes() != (tmp_path / 'other' / name).read_bytes()


@pytest.mark.slow
def test_a_frame_does_not_depend_on_how_many_there_are(tmp_path):
    for frames in (1, 3):
        write_mini_scenes(tmp_path / str(frames), frames, width=64, height=48)
    for path in (tmp_path / '1').rglob('*.png'):
        other = tmp_path / '3' / path.relative_to(tmp_path / '1')
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_class_frequencies_of_the_default_set(tmp_path):
    write_mini_scenes(tmp_path / 'raw', frames=40)
    pixels = np.zeros(len(SYNTHIA_IDS), np.int64)
    areas = {name: [] for name in SYNTHIA_IDS}
    for path in (tmp_path / 'raw' / 'GT').rglob('*.png'):
        counts = np.bincount(read_raw_label(path).ravel(), minlength=len(SYNTHIA_IDS))
        pixels += counts
        for name, count in zip(SYNTHIA_IDS, counts.tolist(), strict=True):
            areas[name] += [count] if count else []
    share = dict(zip(SYNTHIA_IDS, pixels / pixels.sum(), strict=True))
    assert share['reserved 13'] == share['reserved 14'] == 0
    assert all(share[name] > 0.05 for name in ('sky', 'building', 'road', 'sidewalk', 'vegetation'))
    assert all(share[name] > 0.01 for name in ('fence', 'pole', 'car', 'lanemarking'))
    assert 0 < share['void'] < 0.01
    assert 0.001 < share['traffic sign'] < 0.005
    assert 0.002 < share['pedestrian'] < 0.006
    assert share['bicycle'] < 0.001
    assert share['traffic light'] < 0.001
    # Rare because seldom there, and not because too small to be learnt: 12 x 12 pixels and more.
    for name in ('traffic sign', 'pedestrian', 'bicycle', 'traffic light'):
        assert np.median(areas[name]) > 144, name


@pytest.mark.slow
def test_every_class_occurs_in_a_few_frames():
    seen = {
        id_
        for frame in range(6)
        for _, label in render_frame(frame, 0, 128, 64).values()
        for id_ in np.unique(label)
    }
    assert seen == {id_ for id_, name in enumerate(SYNTHIA_IDS) if 'reserved' not in name}


def test_stereo_pair_sees_the_same_scene_shifted():
    views = render_frame(0, 0, 192, 96)
    left, right = (views[f'{side}/Omni_F'][1] for side in SIDES)
    assert 0.6 < (left == right).mean() < 1


def test_a_rendering_is_repeated_or_continued_only_as_it_is(tmp_path):
    out = tmp_path / 'out'
    write_mini_scenes(out, frames=1, width=64, height=48)
    files = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    write_mini_scenes(out, frames=1, width=64, height=48)
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == files
    with pytest.raises(FileExistsError, match='"frames": 2'):
        write_mini_scenes(out, frames=2, width=64, height=48)
    out.rename(tmp_path / 'out.partial')
    with pytest.raises(FileExistsError, match=r'out\.partial'):
        write_mini_scenes(out, frames=2, width=64, height=48)
    write_mini_scenes(out, frames=1, width=64, height=48)
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()} == {
        path: time for path, time in files.items() if path.is_file()
    }


def test_too_little_to_render_is_refused(tmp_path):
    with pytest.raises(ValueError, match='frames >= 1'):
        write_mini_scenes(tmp_path / 'out', frames=0)


def test_everything_runs_on_it_unchanged(tmp_path):
    write_mini_scenes(tmp_path / 'raw', frames=10, width=64, height=48)
    convert_dataset('synthia', tmp_path / 'raw', tmp_path / 'out')
    sizes = {
        split: len(DATASETS.build(stubs.dataset('SynthiaSeqsDataset', tmp_path / 'out', split)))
        for split in ('train', 'val', 'test')
    }
    assert sizes == {'train': 56, 'val': 8, 'test': 16}
    config = config_of(stubs.dataset('SynthiaSeqsDataset', tmp_path / 'out'))
    statistics = class_statistics(config)
    truth = sum(
        np.bincount(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ravel(), minlength=16)
        for path in (tmp_path / 'out' / 'annotations' / 'train').iterdir()
    )
    assert statistics['pixels'] == [*truth[1:13], truth[15]]
