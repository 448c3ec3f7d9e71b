"""The report of classifiers: Tables 4 and 5, the claims about SDN, and the paper's own numbers."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.evaluation import Areas
from mmseg_recall.evaluation.shots import shot_accuracies, shot_of
from mmseg_recall.report import render_report
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.claims import answer
from mmseg_recall.report.questions.classifiers import (
    paper_name,
    paper_shot_tables,
    shot_table,
    shot_verdict,
)
from mmseg_recall.report.summary import Comparison, compare

from . import records
from .page import claims_of

COUNTS = np.array([200, 60, 30, 10, 5])
# Images found of 100, a class.
METHODS = {
    'CE': [99, 90, 80, 40, 20],
    'SDN (CE)': [97, 91, 84, 55, 45],
    'SDN (Recall momentum=0.9)': [96, 92, 86, 65, 60],
    'tau-norm tau=0.7': [90, 88, 85, 60, 50],
}


def record(method: str, seed: int, dataset: str = 'Digits', shift: int = 0) -> dict[str, Any]:
    """One complete record; a seed moves every class by an image."""
    hit = np.clip(np.array(METHODS[method]) + seed - 1 + shift, 0, 100)
    label = np.full(len(hit), 100)
    areas = Areas(hit, label, label)
    metrics = {'top1': hit.mean()}
    shots = shot_accuracies(areas, shot_of(COUNTS))
    metrics |= {name: 100 * float(value) for name, value in shots.items()}
    base = records.record('CE', seed, dataset=dataset, panel=False)
    return base | {
        'name': f'net_{method.lower().replace(" ", "-")}_seed{seed}',
        'setup': base['setup'] | {'task': 'classification', 'loss': method, 'model': 'ResNet-18'},
        'classes': [f'class {c}' for c in range(len(hit))],
        'palette': None,
        'training_pixels': COUNTS.tolist(),
        'areas': {name: area.tolist() for name, area in areas._asdict().items()},
        'images': 500,
        'metrics': metrics,
        'curves': None,
    }


def write(folder: Path, methods=tuple(METHODS), seeds=(0, 1, 2), **options: Any) -> Path:
    for method in methods:
        for seed in seeds:
            one = record(method, seed, **options)
            write_record(folder / f'{one["name"]}.json', one)
    return folder


def comparison(folder: Path, **options: Any) -> Comparison:
    runs, problems = load_runs([write(folder, **options)])
    assert problems == []
    (one,) = compare(runs)
    return one


def test_the_table_has_means_intervals_and_marks(tmp_path: Path) -> None:
    table = shot_table(comparison(tmp_path))
    assert table.columns == ('method', 'seeds', 'all', 'many', 'medium', 'few')
    rows = {row[0].text: row for row in table.rows}
    ce, recall = rows['CE'], rows['SDN (Recall momentum=0.9)']
    # Student's 4.303 with 2 degrees of freedom, and a standard deviation of 1 over 3 seeds.
    assert ce[2].text == '65.8 (63.3 to 68.3)'
    # Seed 2 would have 101 of class 0.
    assert (ce[3].text, ce[3].mark) == ('99.0 (96.5 to 100.0)', 'best')
    assert (recall[5].text, recall[5].mark) == ('62.5 (60.0 to 65.0)', 'best')
    assert rows['tau-norm tau=0.7'][5].mark == 'second'
    assert 'many class 0; medium class 1, class 2; few class 3, class 4' in table.note


def test_the_papers_orderings_hold_on_records_made_so(tmp_path: Path) -> None:
    one = comparison(tmp_path)
    claims = claims_of(answer(one, []))
    assert [claim.outcome for claim in claims] == ['supported'] * 4
    assert claims[0].text.startswith('SDN (Recall) is above SDN (CE) in overall accuracy')
    assert 'difference +5.40 (+5.40 to +5.40), 3 seeds, p < 0.001' in claims[0].evidence
    assert shot_verdict(one).verdict == 'Yes, in overall and in few-shot accuracy'


@pytest.mark.parametrize(
    ('shift', 'outcome'), [(-4, 'not settled'), (10, 'supported'), (-20, 'contradicted')]
)
def test_a_difference_that_seeds_explain_is_not_settled(
    tmp_path: Path, shift: int, outcome: str
) -> None:
    write(tmp_path, ('CE', 'SDN (CE)'))
    for seed in (0, 1, 2):
        one = record('SDN (Recall momentum=0.9)', seed, shift=shift + 2 * seed - 2)
        write_record(tmp_path / f'{one["name"]}.json', one)
    (mixed,) = compare(load_runs([tmp_path])[0])
    claim = claims_of(answer(mixed, []))[0]
    assert claim.outcome == outcome


def test_the_page_says_where_sdn_recall_does_not_win(tmp_path: Path) -> None:
    write(tmp_path, ('CE', 'SDN (CE)', 'tau-norm tau=0.7'))
    one = comparison(tmp_path, methods=('SDN (Recall momentum=0.9)',), shift=-20)
    verdict = shot_verdict(one)
    assert verdict.verdict == 'No, neither in overall nor in few-shot accuracy'
    assert 'behind tau-norm tau=0.7' in verdict.sentences[0]
    render_report([tmp_path], tmp_path / 'out', '2026-11-24')
    for name in ('report.html', 'README.md'):
        assert verdict.verdict in (tmp_path / 'out' / name).read_text()


def idle(one: dict[str, Any]) -> dict[str, Any]:
    """A record of a classifier that names one class, whatever it sees."""
    label = np.array(one['areas']['label'])
    hit = np.where(np.arange(len(label)) == 0, label, 0)
    areas = dict(intersect=hit, predicted=hit * len(label), label=label)
    shots = shot_accuracies(Areas(hit, label, label), shot_of(COUNTS))
    metrics = {name: 100 * float(value) for name, value in shots.items()}
    return one | {
        'areas': {name: area.tolist() for name, area in areas.items()},
        'metrics': one['metrics'] | metrics | {'top1': 100 * hit.sum() / label.sum()},
    }


@pytest.mark.parametrize('every', [True, False])
def test_classifiers_that_learnt_nothing_are_not_compared(tmp_path: Path, every: bool) -> None:
    for method in METHODS:
        for seed in (0, 1, 2):
            one = record(method, seed)
            if every or (method, seed) == ('CE', 0):
                one = idle(one)
            write_record(tmp_path / f'{one["name"]}.json', one)
    (found,) = compare(load_runs([tmp_path])[0])
    verdict = shot_verdict(found)
    text = ' '.join(verdict.sentences)
    assert (verdict.verdict == 'Nothing was learnt') == every
    assert ('at most 1 of 5' in text) == every
    assert ('Finds a class or two only, and is in the means: CE with seed 0.' in text) != every


def test_missing_methods_test_nothing(tmp_path: Path) -> None:
    one = comparison(tmp_path, methods=('CE', 'SDN (CE)'), seeds=(0,))
    outcomes = [claim.outcome for claim in claims_of(answer(one, []))]
    # One seed of SDN (CE) and of CE, none of SDN (Recall).
    assert outcomes == ['not tested', 'not settled'] * 2
    assert shot_verdict(one).verdict == 'Unknown'


def test_the_papers_numbers_stand_beside_ours_on_its_data_sets(tmp_path: Path) -> None:
    (table,) = paper_shot_tables(comparison(tmp_path / 'a', dataset='PlacesLT'))
    assert table.columns[:3] == ('method', 'all: paper', 'all: ours')
    rows = {row[0].text: row for row in table.rows}
    assert [cell.text for cell in rows['SDN (Recall)'][1:3]] == ['39.80', '79.8 (77.3 to 82.3)']
    assert [cell.mark for cell in rows['SDN (Recall)'][1:3]] == ['paper', '']
    assert [cell.text for cell in rows['OLTR'][1:3]] == ['35.90', '-']
    (table,) = paper_shot_tables(comparison(tmp_path / 'b', dataset='INaturalist2018'))
    assert table.columns == ('method', 'all: paper', 'all: ours')
    alone = paper_shot_tables(comparison(tmp_path / 'c'))
    assert [len(table.columns) for table in alone] == [5, 2]
    assert all(cell.mark == 'paper' for table in alone for row in table.rows for cell in row[1:])
    assert all('not of these runs' in table.note for table in alone)


def test_the_papers_tables_are_as_printed() -> None:
    data = json.loads(files('mmseg_recall.report').joinpath('paper_shots.json').read_text())
    places, inaturalist = data['PlacesLT']['values'], data['INaturalist2018']['values']
    assert (len(places), len(inaturalist)) == (9, 10)
    assert max(places, key=lambda name: places[name]['all']) == 'SDN (Recall)'
    assert max(places, key=lambda name: places[name]['few']) == 'tau-norm'
    assert max(inaturalist, key=lambda name: inaturalist[name]['all']) == 'SDN (Recall)'
    for values in places.values():
        assert min(values.values()) <= values['all'] <= max(values.values())


def test_options_are_no_part_of_the_papers_name() -> None:
    names = ['CE', 'SoftmaxFocal gamma=2.0', 'LDAM scale=20.0-DRW', 'SDN (Recall smoothing=1.0)']
    assert [paper_name(name) for name in names] == ['CE', 'Focal', 'LDAM-DRW', 'SDN (Recall)']


def test_files_of_a_report_of_classifiers(tmp_path: Path) -> None:
    write(tmp_path / 'records')
    assert render_report([tmp_path / 'records'], tmp_path / 'out', '2026-11-24') == []
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'MANIFEST',
        'report.html',
        'README.md',
        'runs.csv',
        'classes.csv',
    }
    rows = list(csv.DictReader((tmp_path / 'out' / 'runs.csv').open()))
    assert len(rows) == 3 * len(METHODS)
    assert {'top1', 'many', 'medium', 'few'} <= rows[0].keys()
    assert 'mIoU' not in rows[0]
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert 'Comparison of classifiers for long-tailed data' in page
    assert 'mIoU' not in page and 'pixel' not in page.partition('</style>')[2]


def test_segmentation_and_classification_share_a_page(tmp_path: Path) -> None:
    write(tmp_path)
    records.write_records(tmp_path, losses=('CE', 'Recall'), seeds=(0,))
    assert render_report([tmp_path], tmp_path / 'out', '2026-11-24') == []
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert 'Does imbalance limit you?' in page and 'Does SDN (Recall) win?' in page
    assert 'CamVid' in (tmp_path / 'out' / 'metafile.yml').read_text()
    assert 'Digits' not in (tmp_path / 'out' / 'metafile.yml').read_text()
