"""Names that a stranger chose are text on every page."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report import render_report
from mmseg_recall.report.render import _csv_cell, _markdown

from .records import CLASSES, record

NAMES = (
    '<script>alert(1)</script>',
    'a|b',
    'line\nbreak',
    '=HYPERLINK("http://x","y")',
    '@SUM(A1)',
    '-1+cmd',
    '[x](javascript:alert)',
    'cost $5 and $6',
    '`code` *bold* _under_',
)


@pytest.fixture(scope='module')
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('report')
    for loss in ('CE', 'Recall'):
        one = record(loss, 0, panel=False)
        names = dict(zip(CLASSES, NAMES, strict=True))
        one['classes'] = list(NAMES)
        for quantity, values in (one['curves'] or {}).items():
            if quantity != 'iterations':
                one['curves'][quantity] = {names[c]: v for c, v in values.items()}
        write_record(folder / 'runs' / f'{one["name"]}.json', one)
    assert render_report([folder / 'runs'], folder / 'out', '2026-01-01') == []
    return folder / 'out'


def test_the_page_has_no_element_of_theirs(report: Path) -> None:
    text = (report / 'report.html').read_text()
    assert text.count('<script>') == 1 and '&lt;script&gt;' in text


def test_markdown_tables_keep_their_columns(report: Path) -> None:
    text = (report / 'README.md').read_text()
    assert '<script' not in text and '[x](' not in text
    table = text[text.index('### Accuracy by class') :].split('\n\n')[2].splitlines()
    bare = [line.replace('\\|', '').count('|') for line in table]
    assert len(table) == 2 + len(NAMES) + 2
    assert len(set(bare)) == 1


def test_no_cell_of_csv_is_a_formula(report: Path) -> None:
    rows = list(csv.reader((report / 'classes.csv').open()))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(('=', '+', '-', '@'))]
    assert {f"'{name}" for name in NAMES if name[0] in '=@-'} <= set(cells)


def test_text_of_figures_is_whole(report: Path) -> None:
    drawn = (report / 'figures' / 'precision-1.svg').read_text()
    assert '>cost $5 and $6<' in drawn


@pytest.mark.parametrize('text', ['0.025', 'beta=0.9999', 'v1.23456'])
def test_numbers_in_text_are_not_cut(tmp_path: Path, text: str) -> None:
    for loss in ('CE', 'Recall'):
        one = record(loss, 0, panel=False)
        one['setup']['loss'] = loss if loss == 'CE' else f'Recall {text}'
        write_record(tmp_path / 'runs' / f'{loss}.json', one)
    render_report([tmp_path / 'runs'], tmp_path / 'out', '2026-01-01')
    assert f'Recall {text}<' in (tmp_path / 'out' / 'figures' / 'scatter-1.svg').read_text()


@pytest.mark.parametrize('value', ['=1', '+1', '-1', '@a', '\t=1'])
def test_a_formula_is_text(value: str) -> None:
    assert _csv_cell(value) == f"'{value}"


def test_what_markdown_says_in_one_line() -> None:
    assert _markdown('a|b\n<b>&amp;*') == 'a\\|b &lt;b>&amp;amp;\\*'
