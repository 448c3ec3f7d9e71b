"""Which configs the benchmark takes by the names that it is given, and how it ends."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from mmseg_recall import comparison
from mmseg_recall.stack import stock_script

from .run import ROOT


def configs_of(names: list[str], monkeypatch) -> list[str]:
    """The configs that are planned."""
    seen: list[str] = []
    monkeypatch.setattr(comparison, 'plan_runs', lambda configs, *_, **__: seen.extend(configs))
    monkeypatch.setattr(comparison, 'run_all', lambda *_, **__: {})
    tool = str(ROOT / 'tools' / 'benchmark.py')
    monkeypatch.setattr(sys, 'argv', [tool, *names, '--out', 'out'])
    runpy.run_path(tool, run_name='__main__')
    return seen


@pytest.mark.parametrize(
    ('given', 'taken'),
    [
        ('a1.py', ['a1.py']),
        ('a[1].py', ['a[1].py']),
        ('b[1].py', ['b1.py']),
        ('a?.py', ['a1.py', 'a2.py']),
        ('my config.py', ['my config.py']),
        ('c*.py', ['c*.py']),
        ('none*.py', ['none*.py']),
    ],
)
def test_a_config_is_a_file_before_it_is_a_pattern(tmp_path, monkeypatch, given, taken):
    for name in ('a1.py', 'a2.py', 'a[1].py', 'b1.py', 'my config.py', 'c*.py', 'cd.py'):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert configs_of([given], monkeypatch) == taken


@pytest.mark.parametrize('error', [ImportError, FileExistsError, FileNotFoundError, ValueError])
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, capsys, error):
    def refuse(*_, **__):
        raise error('what is wrong')

    monkeypatch.setattr(comparison, 'plan_runs', refuse)
    tool = str(ROOT / 'tools' / 'benchmark.py')
    monkeypatch.setattr(sys, 'argv', [tool, 'a.py', '--out', str(tmp_path / 'out')])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(tool, run_name='__main__')
    assert stopped.value.code == 2
    assert capsys.readouterr().err == 'what is wrong\n'
    assert list(Path(tmp_path).iterdir()) == []


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(FileNotFoundError, match='no_such_package is not installed'):
        stock_script('train.py', 'no_such_package')
