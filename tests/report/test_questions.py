"""A question is one file: a stranger's stands on both pages, and names no other file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmseg_recall.report import questions, render_report

from .records import write_records

STRANGER = '''
"""Which loss remembers?"""
from mmseg_recall.report.blocks import Cell, Claim, Claims, Section, Table, Verdict

ORDER = 15


def answer(comparison, comparisons):
    if comparison.baseline is None:
        return None
    blocks = (
        Verdict('None that we know', (f'{len(comparison.runs)} runs were asked.',)),
        Table('Memory by loss', '', ('loss', 'score'), ((Cell('CE'), Cell('1', 1.0)),)),
        Claims((Claim('An elephant does.', 'confirmed', 'One was asked.'),)),
    )
    return Section('Which loss remembers?', blocks)
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'questions'
    folder.mkdir()
    (folder / 'stranger.py').write_text(STRANGER)
    monkeypatch.setattr(questions, '__path__', [*questions.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f'{questions.__name__}.stranger', raising=False)


def pages(folder: Path, losses: tuple[str, ...]) -> list[str]:
    write_records(folder / 'runs', losses=losses, seeds=(0,))
    assert render_report([folder / 'runs'], folder / 'out', '2026-01-01') == []
    return [(folder / 'out' / name).read_text() for name in ('report.html', 'README.md')]


def test_a_new_file_is_a_new_section_on_both_pages(stranger: None, tmp_path: Path) -> None:
    for text in pages(tmp_path, ('CE', 'Recall')):
        for words in ('None that we know', '2 runs were asked.', 'Memory by loss', 'An elephant'):
            assert words in text
        title = text.index('Which loss remembers?')
        assert text.index('Does imbalance limit you?') < title < text.index('claims on these runs')


def test_without_an_answer_there_is_no_section(stranger: None, tmp_path: Path) -> None:
    for text in pages(tmp_path, ('Recall',)):
        assert 'Which loss remembers?' not in text
