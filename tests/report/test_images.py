"""Records with the areas of each image: intervals cover images, and scenes where they are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmseg_recall.comparison.image_areas import pack
from mmseg_recall.comparison.record import write_record
from mmseg_recall.evaluation import Areas
from mmseg_recall.report import render_report
from mmseg_recall.report.groups import group_images
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.summary import Comparison, compare

from .records import record

NAMES = [f'drive{i // 5}_{i}' for i in range(20)]


def with_images(loss: str, seed: int, **changes: object) -> dict:
    """A record whose totals are split over images, unequally."""
    one = record(loss, seed, panel=False)
    share = np.linspace(0.5, 1.5, len(NAMES))[:, None] / len(NAMES)
    totals = [np.array(one['areas'][name]) for name in Areas._fields]
    images = [(share * total).astype(np.int64) for total in totals]
    for image, total in zip(images, totals, strict=True):
        image[-1] += total - image.sum(axis=0)
    return one | {'image_areas': pack(Areas(*images), NAMES)} | changes


def write(folder: Path, seeds: tuple[int, ...] = (0, 1), **changes: object) -> Path:
    for loss in ('CE', 'Recall'):
        for seed in seeds:
            one = with_images(loss, seed, **changes)
            write_record(folder / f'{one["name"]}.json', one)
    return folder


def compared(folder: Path, groups: dict[str, str] | None = None) -> Comparison:
    runs, problems = load_runs([folder])
    assert problems == []
    (one,) = compare(runs, groups)
    return one


def test_one_seed_has_an_interval_over_images(tmp_path: Path) -> None:
    one = compared(write(tmp_path, seeds=(0,)))
    found = one.difference(one.losses[1], one.losses[0], 'mIoU')
    low, high = found.interval()
    assert low < found.mean < high and found.groups == 20
    assert one.basis == (
        'One seed: intervals of 95% are over the 20 images alone and cover no other seed.'
    )


def test_scenes_are_fewer_than_images(tmp_path: Path) -> None:
    groups, problems = group_images('^(drive[0-9])', NAMES)
    assert problems == []
    one = compared(write(tmp_path), groups)
    assert one.difference(one.losses[1], one.losses[0], 'mIoU').groups == 4
    assert one.basis == 'Intervals of 95% are over seeds and over the 20 images in 4 groups.'


@pytest.mark.parametrize('metric', ['mIoU', 'mAcc', 'aAcc', ('IoU', 3), ('Acc', 0)])
def test_no_resampling_gives_the_mean_itself(tmp_path: Path, metric) -> None:
    one = compared(write(tmp_path))
    drawn = one._on_resamples(one.losses[0], metric, [0, 1])
    assert drawn.mean() == pytest.approx(one.estimate(one.losses[0], metric).mean, abs=0.5)


def test_images_that_a_file_misses_are_named(tmp_path: Path) -> None:
    write(tmp_path / 'runs')
    file = tmp_path / 'scenes.json'
    file.write_text(json.dumps({name: 'day' for name in NAMES[:-1]}))
    (problem,) = render_report(
        [tmp_path / 'runs'], tmp_path / 'out', '2026-01-01', groups=str(file)
    )
    assert NAMES[-1] in problem and 'group of its own' in problem


@pytest.mark.parametrize('groups', ['(', 'nowhere.json'])
def test_groups_that_are_none_are_an_error(groups: str) -> None:
    with pytest.raises(ValueError, match=r'regular expression|JSON file'):
        group_images(groups, NAMES)


@pytest.mark.parametrize(
    'damaged',
    [
        pack(Areas(*np.ones((3, 20, 9), dtype=np.int64)), NAMES),
        {'names': NAMES, 'data': 'AAAA'},
        {'names': NAMES},
        'text',
        {'names': NAMES, 'data': 5},
    ],
)
def test_damaged_areas_are_named_and_the_rest_reported(tmp_path: Path, damaged: object) -> None:
    write(tmp_path)
    one = with_images('Dice', 0, image_areas=damaged)
    write_record(tmp_path / 'bad.json', one)
    runs, (problem,) = load_runs([tmp_path])
    assert len(runs) == 4
    assert 'bad.json' in problem and 'image_areas' in problem


def test_other_images_are_not_paired(tmp_path: Path) -> None:
    write(tmp_path, seeds=(0,))
    other = with_images('Dice', 0)
    other['image_areas']['names'] = [f'other{i}' for i in range(20)]
    write_record(tmp_path / 'other.json', other)
    assert 'no areas of single images' in compared(tmp_path).basis
