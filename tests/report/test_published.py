"""The published report is what the published records give."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mmseg_recall.report import render_report
from mmseg_recall.report.paper import PAPER_NAMES
from mmseg_recall.report.questions.classifiers import paper_name

RESULTS = Path(__file__).parents[2] / 'results'
RECORDS = [RESULTS / 'camvid', RESULTS / 'synthia-mini']
CLASSIFICATION = RESULTS / 'classification'
STUDY = RESULTS / 'study'
STUDIED = sorted(path for path in STUDY.iterdir() if any(path.glob('*_seed*.json')))
SHARED = [
    path
    for loss in ('recall', 'inversefrequency', 'lovaszsoftmax')
    for folder in RECORDS
    for path in folder.glob(f'*_{loss}_seed*.json')
]
METHODS = {'CE', 'Focal', 'LDAM-DRW', 'SDN (CE)', 'SDN (Recall)', 'tau-norm', 'LWS'}
CLASSIFIERS = {
    'digits-lt': (METHODS, [0, 1, 2, 3, 4]),
    'elpv': (METHODS | {'Focal-DRW', 'LDAM', 'BBN'}, [0, 1, 2]),
    # tau-norm has no learning rate to choose.
    'elpv-tuned': (METHODS - {'tau-norm'} | {'Focal-DRW', 'LDAM', 'BBN'}, [0, 1, 2, 3, 4]),
}
WORDS = re.compile(r'<text[^>]*>([^<]*)<')
REPORTS = {
    'report': RECORDS,
    'classification/report': [CLASSIFICATION / name for name in CLASSIFIERS],
    'study/report': [*STUDIED, *SHARED],
}


@pytest.mark.parametrize(
    'report',
    [
        pytest.param('report', marks=pytest.mark.slow),
        'classification/report',
        pytest.param('study/report', marks=pytest.mark.slow),
    ],
)
def test_the_published_records_give_a_report(report, tmp_path):
    assert render_report(REPORTS[report], tmp_path, '2026-01-01') == []
    page = (tmp_path / 'report.html').read_text()
    runs = list(csv.DictReader((tmp_path / 'runs.csv').open()))
    assert f'{len(runs)} runs in ' in page
    folders = [p for p in REPORTS[report] if p.is_dir()]
    files = [p for folder in folders for p in folder.glob('*.json')]
    assert len(runs) == len(files) + len(REPORTS[report]) - len(folders)
    for path in (RESULTS / report).parent.glob('figures/*'):
        drawn = (tmp_path / 'figures' / path.name).read_text()
        # Its lines differ with the version of matplotlib that drew them.
        assert WORDS.findall(drawn) == WORDS.findall(path.read_text())


def test_no_report_is_kept_with_the_records():
    tracked = subprocess.run(
        ['git', 'ls-files', 'results'],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    figures = [path for path in tracked if path.endswith(('.svg', '.png'))]
    pages = [
        (RESULTS.parent / name).read_text() for name in ('README.md', 'results/study/README.md')
    ]
    assert not [path for path in tracked if '/report/' in path]
    assert all(
        any(path.removeprefix('results/study/') in page for page in pages) for path in figures
    )


@pytest.mark.parametrize('folder', RECORDS, ids=lambda folder: folder.name)
def test_every_loss_was_run_with_the_same_three_seeds(folder):
    records = [json.loads(path.read_text()) for path in folder.glob('*.json')]
    seeds = {}
    for record in records:
        assert record['status'] == 'complete'
        seeds.setdefault(record['setup']['loss'], set()).add(record['seed'])
    assert len({record['setup']['key'] for record in records}) == 1
    assert all(found == {0, 1, 2} for found in seeds.values())
    assert set(seeds) == set(PAPER_NAMES)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_every_classifier_was_run_with_the_same_seeds(name):
    methods, expected = CLASSIFIERS[name]
    records = [json.loads(path.read_text()) for path in (CLASSIFICATION / name).glob('*.json')]
    assert {record['status'] for record in records} == {'complete'}
    assert len({record['setup']['key'] for record in records}) == 1
    labels = {record['setup']['loss'] for record in records}
    assert {paper_name(label) for label in labels} == methods
    for label in labels:
        seeds = [r['seed'] for r in records if r['setup']['loss'] == label]
        assert sorted(seeds) == expected


@pytest.mark.parametrize('folder', STUDIED, ids=lambda folder: folder.name)
def test_each_run_of_the_study_is_there_once(folder):
    records = [json.loads(path.read_text()) for path in folder.glob('*.json')]
    assert {record['status'] for record in records} == {'complete'}
    runs = Counter((r['setup']['key'], r['setup']['loss'], r['seed']) for r in records)
    assert set(runs.values()) == {1}


def test_the_study_names_the_number_of_settings_that_it_tried():
    tried = len(list((STUDY / 'holdout').glob('*.json')))
    assert f'{tried} settings' in (STUDY / 'README.md').read_text()
    assert f'{tried} settings' in (RESULTS.parent / 'README.md').read_text()


def test_no_image_of_camvid_is_published():
    for folder in (RESULTS / 'camvid', *(f for f in STUDIED if f.name != 'synthia-mini')):
        for path in folder.glob('*.json'):
            assert json.loads(path.read_text())['panel'] == []
