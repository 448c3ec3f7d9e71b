"""The order of the losses by the learning rate of one, and by each one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions import tuning
from mmseg_recall.report.summary import compare

from .records import record

RATES = [0.01, 0.1, 1.0]
# By loss: the scores of a first round, and of a second of the two that are left.
TRIED: dict[str, tuple[list[float | None], dict[float, float | None]]] = {
    'CE': ([30, 40, 35], {0.1: 50, 1.0: 51}),
    'Recall': ([20, 50, 45], {0.1: 52, 1.0: 48}),
    'OHEM': ([10, 33, None], {0.01: 40, 0.1: 54}),
}


def tuned(loss: str, unit: str = 'iterations', metric: str = 'mIoU') -> dict[str, Any]:
    made = record(loss, 0)
    first, last = TRIED[loss]
    trials = [{'lr': lr, unit: 20, metric: s} for lr, s in zip(RATES, first, strict=True)]
    trials += [{'lr': lr, unit: 30, metric: s} for lr, s in last.items()]
    made['setup']['tuning'] = {'budget': 120, 'learning_rates': RATES, 'trials': trials}
    return made


@pytest.mark.parametrize('unit', ['iterations', 'epochs'])
@pytest.mark.parametrize('metric', ['mIoU', 'top1'])
def test_places_before_and_after(tmp_path: Path, unit: str, metric: str) -> None:
    for loss in TRIED:
        write_record(tmp_path / f'{loss}.json', tuned(loss, unit, metric))
    write_record(tmp_path / 'untuned.json', record('Dice', 0))
    runs, problems = load_runs([tmp_path])
    assert problems == []
    (one,) = compare(runs)
    section = tuning.answer(one, [one])
    assert section is not None
    (table,) = section.blocks
    assert f'after 30 {unit}' in table.note and f'120 {unit}' in table.note
    assert table.columns == (
        'loss',
        '0.01',
        '0.1',
        '1',
        'place at 1',
        'taken',
        'tuned',
        'place tuned',
    )
    assert [[cell.text for cell in row] for row in table.rows] == [
        ['CE', '30.0', '40.0', '35.0', '2', '1', '51.0', '3'],
        ['OHEM', '10.0', '33.0', '-', '3', '0.1', '54.0', '1'],
        ['Recall', '20.0', '50.0', '45.0', '1', '0.1', '52.0', '2'],
    ]


@pytest.mark.parametrize('losses', [['CE'], ['Recall', 'OHEM']])
def test_nothing_to_compare(tmp_path: Path, losses: list[str]) -> None:
    for loss in losses:
        write_record(tmp_path / f'{loss}.json', tuned(loss))
    (one,) = compare(load_runs([tmp_path])[0])
    assert tuning.answer(one, [one]) is None


@pytest.mark.parametrize(
    'wrong',
    [
        {'trials': []},
        {'trials': 3},
        {'trials': [{'lr': 0.1}]},
        {'trials': [{'lr': lr, 'iterations': None, 'mIoU': 3} for lr in RATES]},
        {'trials': [{'lr': lr, 'iterations': 20, 'mIoU': '3'} for lr in RATES]},
        {'trials': [{'lr': lr, 'iterations': 20, 'mIoU': 3} for lr in RATES[:2]]},
        {'learning_rates': ['0.01', 0.1, 1.0]},
        {'budget': None},
    ],
)
def test_a_record_of_other_trials_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    made = tuned('CE')
    made['setup']['tuning'] |= wrong
    write_record(tmp_path / 'a.json', made)
    runs, problems = load_runs([tmp_path])
    assert not runs
    assert "a.json: damaged record, 'tuning' of its setup is malformed" in problems[0]
