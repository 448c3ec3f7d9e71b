"""A page fits its window, or what does not scrolls for all to see; what is sorted has numbers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report import render_report
from mmseg_recall.report.blocks import estimated, number
from mmseg_recall.statistics import Estimate

from .records import record
from .work_dirs import work_dir

VOID = {'meta', 'img', 'br', 'wbr', 'link', 'input'}
WIDE = {'table': 'scroll', 'svg': 'drawing', 'img': 'pieces'}
NUMBER = re.compile(r'-?\d+(\.\d+)?(e[+-]?\d+)?')


class Page(HTMLParser):
    """The tables of a page, and what is wider than a window and stands in nothing that scrolls."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside: list[tuple[str, str]] = []
        self.loose: list[str] = []
        self.wide: list[str] = []
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        if tag in WIDE:
            self.wide.append(tag)
            if not any(WIDE[tag] == place for _, place in self.inside):
                self.loose.append(tag)
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr' and self.tables:
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append(('', values.get('data-sort')))
        if tag not in VOID:
            self.inside.append((tag, values.get('class', '')))

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(tag in ('td', 'th') for tag, _ in self.inside):
            text, sort = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((text + data, sort))


@pytest.fixture(scope='module')
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp('layout')
    for loss in ('CE', 'Recall', 'InverseFrequency', 'OHEM', 'LovaszSoftmax'):
        one = record(loss, 0)
        if loss != 'CE':
            one['seconds_per_iteration'] = None
        if loss == 'OHEM':
            one['metrics']['mF1'] = None
        write_record(folder / 'runs' / f'{loss}.json', one)
    work_dir(folder / 'runs' / 'stock', loss='DiceLoss')
    render_report([folder / 'runs'], folder / 'out', '2026-01-01')
    return Path(folder / 'out' / 'report.html').read_text()


def test_what_is_wide_stands_in_what_scrolls_or_wraps(text: str) -> None:
    page = Page(text)
    assert {*page.wide} == {*WIDE} and page.loose == []
    bare = re.sub(r'/\*.*?\*/', '', text)
    found = re.findall(r'^([^{}@]+?) \{ (.*?)\}', bare, re.M | re.S)
    rules = {names.strip(): rule for names, rule in found}
    scrolls = rules['.scroll, .drawing']
    assert 'overflow-x: auto' in scrolls and 'var(--shade)' in scrolls
    assert 'height' in rules['.scroll::-webkit-scrollbar, .drawing::-webkit-scrollbar']
    assert 'auto-fill' in rules['.pieces'] and 'max-content' not in text
    # A path that does not break would be wider than a phone.
    for place in ('.verdict', '.pieces figcaption', '.problems li'):
        assert 'overflow-wrap: anywhere' in rules[place]


def test_cells_without_a_number_sort_last_and_others_by_theirs(text: str) -> None:
    columns = [
        column
        for table in Page(text).tables
        for column in zip(*table[1:], strict=True)
        if any(sort is not None for _, sort in column)
    ]
    # Some column has cells with a number and cells without.
    assert any({sort is None for _, sort in column} == {True, False} for column in columns)
    for column in columns:
        for words, sort in column:
            if sort is None:
                assert words.strip() in ('-', '')
            else:
                assert NUMBER.fullmatch(sort), f'{sort} is no number in a browser'
                assert words.strip() != '-'
    script = text[text.index('<script>') :]
    rule = 'missing(a) - missing(b) ||'
    assert rule in script and 'dataset.sort === undefined' in script


@pytest.mark.parametrize(
    'cell',
    [
        number(np.nan),
        number(np.nan, mark='best'),
        estimated(Estimate(np.nan, 0)),
        number(float('nan'), 0),
    ],
)
def test_nothing_is_no_number(cell) -> None:
    assert (cell.text, cell.sort, cell.mark) == ('-', None, '')
