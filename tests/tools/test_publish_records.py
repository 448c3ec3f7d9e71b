"""Records are copied, and never over others."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mmseg_recall.comparison.record import read_record, write_record
from mmseg_recall.out_folder import Manifest, write_manifest
from tests.report.records import record, write_records

from .run import ROOT


def publish(*arguments: str | Path, monkeypatch) -> None:
    tool = ROOT / 'tools' / 'publish_records.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), *map(str, arguments)])
    runpy.run_path(str(tool), run_name='__main__')


@pytest.fixture
def runs(tmp_path):
    write_manifest(tmp_path / 'runs', Manifest('benchmark'))
    return write_records(tmp_path / 'runs', losses=('CE', 'Recall'), seeds=(0, 1))


def test_records_are_copied_again_and_again(runs, tmp_path, monkeypatch, capsys):
    for _ in range(2):
        publish(runs, '--out', tmp_path / 'out', monkeypatch=monkeypatch)
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == sorted(path.name for path in runs.glob('*.json'))
    assert '4 records' in capsys.readouterr().out
    publish(runs, '--out', tmp_path / 'bare', '--no-pictures', monkeypatch=monkeypatch)
    assert read_record(tmp_path / 'bare' / names[0])['panel'] == []


def other(**changes):
    return {**record('CE', 0), **changes}


OTHERS = [
    other(seed=3),
    other(panel=[]),
    other(status='failed', failure=dict(stage='test', returncode=1, log_tail='')),
    other(metrics={'mIoU': None}),
    other(device='another'),
]


@pytest.mark.parametrize('one', OTHERS, ids=range(len(OTHERS)))
def test_another_record_of_the_same_name_stays(runs, tmp_path, monkeypatch, capsys, one):
    path = tmp_path / 'out' / 'model_ce_seed0.json'
    write_record(path, one)
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        publish(runs, '--out', tmp_path / 'out', monkeypatch=monkeypatch)
    assert stopped.value.code == 1
    assert 'model_ce_seed0.json' in (words := capsys.readouterr().err) and '--force' in words
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]
    publish(runs, '--out', tmp_path / 'out', '--force', monkeypatch=monkeypatch)
    assert read_record(path) == read_record(runs / path.name)


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def a_text(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('mine')


@pytest.mark.parametrize(
    ('name', 'put'),
    [
        ('README.md', a_text),
        ('model_ce_seed0.json', a_text),
        ('model_ce_seed0.json', a_folder),
        ('figures', a_folder),
        ('', a_text),
    ],
)
@pytest.mark.parametrize('force', [(), ('--force',)])
def test_a_folder_of_anything_else_is_refused(
    runs, tmp_path, monkeypatch, capsys, name, put, force
):
    put(tmp_path / 'out' / name)
    with pytest.raises(SystemExit) as stopped:
        publish(runs, '--out', tmp_path / 'out', *force, monkeypatch=monkeypatch)
    assert stopped.value.code == 1
    assert str(tmp_path / 'out') in capsys.readouterr().err
    assert len([p for p in (tmp_path / 'out').rglob('*')]) == (1 if name else 0)
