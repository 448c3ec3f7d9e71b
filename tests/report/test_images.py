"""Records with the areas of each image: intervals cover images, and scenes where they are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmseg_recall.comparison.image_areas import pack, unpack
from mmseg_recall.comparison.record import write_record
from mmseg_recall.evaluation import Areas
from mmseg_recall.evaluation.groups import group_images
from mmseg_recall.report import render_report
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.classes import class_table
from mmseg_recall.report.summary import Comparison, compare

from .records import record
from .work_dirs import work_dir

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
    basis = compared(tmp_path).basis
    assert 'model_dice_seed0 and model_ce_seed0 were tested on different images' in basis


def test_a_run_without_areas_of_images_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    write_record(tmp_path / 'dice.json', record('Dice', 0, panel=False))
    assert 'model_dice_seed0 holds no areas of single images' in compared(tmp_path).basis


def test_one_image_tells_nothing_of_others(tmp_path: Path) -> None:
    for seed in (0, 1):
        for loss in ('CE', 'Recall'):
            one = record(loss, seed, panel=False)
            totals = (np.array(one['areas'][name])[None] for name in Areas._fields)
            one['image_areas'] = pack(Areas(*totals), ['only'])
            write_record(tmp_path / f'{one["name"]}.json', one)
    one = compared(tmp_path)
    found = one.difference(one.losses[1], one.losses[0], 'mIoU')
    assert 'over seeds alone: one test image, so' in one.basis
    assert found.groups == 0 and found.interval()[0] < found.mean


def test_scenes_that_are_one_tell_nothing_of_others(tmp_path: Path) -> None:
    one = compared(write(tmp_path), dict.fromkeys(NAMES, 'day'))
    assert 'all test images are one group' in one.basis


def test_a_class_in_no_test_image_is_named_and_the_rest_judged(tmp_path: Path) -> None:
    for loss in ('CE', 'Recall'):
        for seed in (0, 1):
            one = with_images(loss, seed)
            images, names = unpack(one['image_areas'], 9)
            for array in images:
                array[:, 8] = 0
            one['image_areas'] = pack(images, list(names))
            for name, array in zip(Areas._fields, images, strict=True):
                one['areas'][name] = array.sum(axis=0).tolist()
            one['metrics'] = {}
            write_record(tmp_path / f'{one["name"]}.json', one)
    one = compared(tmp_path)
    table = class_table(one, 'Acc', 'Accuracy')
    assert table.note.endswith('In no test image: pole. Share of the pixels of the training set.')
    rows = {row[0].text.rstrip(' †'): row[2].text for row in table.rows}
    assert rows['pole'] == '-' and rows['bicycle'] != '-'
    ce, recall = one.losses
    assert math.isnan(one.difference(recall, ce, ('Acc', 8)).mean)
    assert one.difference(recall, ce, 'mAcc').groups == 20


def test_a_metric_that_is_nan_is_named_and_the_rest_judged(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        work_dir(tmp_path / f'ce{seed}', seed=seed)
        work_dir(tmp_path / f'dice{seed}', loss='DiceLoss', seed=seed)
    scalars = tmp_path / 'dice1' / '20240101_000000' / 'vis_data' / 'scalars.json'
    scalars.write_text(scalars.read_text().replace('"mIoU": 61.0', '"mIoU": NaN'))
    runs, (problem,) = load_runs([tmp_path])
    assert (
        problem == f'{tmp_path / "dice1"}: mIoU NaN; what is said of its loss is of the other seeds'
    )
    (one,) = compare(runs)
    ce, dice = one.losses
    assert one.estimate(dice, 'mIoU').seeds == one.difference(dice, ce, 'mIoU').seeds == 2
    assert one.estimate(ce, 'mIoU').seeds == one.difference(dice, ce, 'mAcc').seeds == 3
