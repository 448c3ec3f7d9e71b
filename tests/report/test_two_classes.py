"""A page of two classes, or of few, says each thing once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.classes import answer
from mmseg_recall.report.questions.imbalance import overall_table
from mmseg_recall.report.questions.panel import panel_of
from mmseg_recall.report.summary import Comparison, compare

from .page import of_kind
from .records import record

KEPT = {'background and a rare class': [0, 8], 'equal': [1, 2], 'three': [0, 1, 8]}


def cut(loss: str, classes: list[int]) -> dict[str, Any]:
    """A record of these classes of the others' only."""
    one = record(loss, 0)
    one['classes'] = [one['classes'][c] for c in classes]
    one['palette'] = [one['palette'][c] for c in classes]
    one['training_pixels'] = [one['training_pixels'][c] for c in classes]
    one['areas'] = {name: [area[c] for c in classes] for name, area in one['areas'].items()}
    one['curves'] = None
    one['metrics'] = {}
    return one


def comparison(folder: Path, classes: list[int], records: list[dict] | None = None) -> Comparison:
    for one in records or [cut(loss, classes) for loss in ('CE', 'Recall')]:
        write_record(folder / f'{one["name"]}.json', one)
    runs, problems = load_runs([folder])
    assert problems == []
    (found,) = compare(runs)
    return found


@pytest.mark.parametrize('kind', KEPT)
def test_precision_and_f1_of_each_class_stand_in_tables_of_two_classes(tmp_path, kind):
    one = comparison(tmp_path, KEPT[kind])
    tables = {table.title: table for table in of_kind(answer(one, [one]), 'table')}
    wanted = {'Accuracy by class', 'IoU by class'}
    if kind != 'three':
        wanted |= {'Precision by class', 'F1 by class'}
    assert set(tables) == wanted
    rows = {row[0].text: [cell.text for cell in row[2:]] for row in tables['IoU by class'].rows}
    assert ('average' in rows) == (kind == 'three')
    if kind == 'three':
        return
    name = one.classes[1]
    (row,) = (r for r in tables['Precision by class'].rows if r[0].text.startswith(name))
    precision = one.baseline.per_class('Precision', 1).mean
    assert row[2].text == f'{precision:.1f}'


@pytest.mark.parametrize(('kind', 'number'), [('background and a rare class', 1), ('three', 1)])
def test_the_mean_over_one_minority_class_is_not_shown_beside_it(tmp_path, kind, number):
    one = comparison(tmp_path, KEPT[kind])
    assert len(one.minority) == number
    assert not any('minority' in column for column in overall_table(one).columns)
    rows = [row[0].text for table in of_kind(answer(one, [one]), 'table') for row in table.rows]
    assert 'average †' not in rows
    assert any(row.endswith('†') for row in rows)


def test_a_minority_of_all_classes_is_the_mean_itself(tmp_path):
    one = comparison(tmp_path, [6, 7, 8])
    assert one.minority == [0, 1, 2]
    assert not any('minority' in column for column in overall_table(one).columns)
    two_of_three = comparison(tmp_path / 'two', [0, 7, 8])
    assert any('minority' in column for column in overall_table(two_of_three).columns)


def piece(name: str, image: str, box: list[int]) -> dict[str, Any]:
    (one, *_) = record('CE', 0)['panel']
    return {**one, 'class': name, 'image': image, 'box': box}


def test_the_panel_of_rare_objects_has_no_background(tmp_path):
    records = [cut(loss, [0, 8]) for loss in ('CE', 'Recall')]
    pole, sky = piece('pole', 'a.png', [0, 0, 80, 60]), piece('sky', 'b.png', [0, 0, 80, 60])
    for one in records:
        one['panel'] = [pole, sky]
    found = panel_of(comparison(tmp_path / 'a', [0, 8], records))
    assert [p.heading for p in found.pieces] == ['pole, in a.png']
    for one in records:
        one['panel'] = [sky]
    assert panel_of(comparison(tmp_path / 'b', [0, 8], records)) is None


def test_only_pieces_of_the_same_place_stand_side_by_side(tmp_path):
    records = [cut(loss, [0, 8]) for loss in ('CE', 'Recall')]
    box = [0, 0, 80, 60]
    records[0]['panel'] = [piece('pole', 'a.png', box), piece('pole', 'b.png', box)]
    # Made by another version: in another order, and elsewhere.
    records[1]['panel'] = [piece('pole', 'c.png', box), piece('pole', 'a.png', box)]
    found = panel_of(comparison(tmp_path, [0, 8], records))
    assert [p.heading for p in found.pieces] == ['pole, in a.png']
    assert [caption for caption, _ in found.pieces[0].pictures] == [
        'image', 'truth', 'CE', 'Recall',
    ]  # fmt: skip
