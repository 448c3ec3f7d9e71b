"""SIGKILL at random moments: nothing is lost, and nothing counts that is not finished."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmseg_recall import out_folder
from mmseg_recall.comparison import benchmark
from mmseg_recall.comparison.record import read_record
from mmseg_recall.report import render_report
from mmseg_recall.report.load import load_runs
from tests.comparison.test_benchmark import plan, use_stand_ins
from tests.report.records import write_records

KILLS = 20
PLANS = [plan(), plan('ce', 'CrossEntropyLoss'), plan('ohem', 'OHEMLoss')]
pytestmark = pytest.mark.slow


def killed(work: Callable[[], object], seconds: float, children: bool) -> bool:
    """Fork, work, and be killed, with or without the children; whether that came before the end."""
    process = multiprocessing.get_context('fork').Process(target=work)
    process.start()
    os.setpgid(process.pid, process.pid)
    process.join(seconds)
    alive = process.is_alive()
    if alive:
        (os.killpg if children else os.kill)(process.pid, signal.SIGKILL)
    process.join()
    return alive


def results(out: Path) -> dict[str, dict]:
    kept = ('config', 'status', 'checkpoint', 'areas', 'curves', 'seed')
    return {p.stem: {k: read_record(p)[k] for k in kept} for p in out.glob('*.json')}


def test_a_comparison(tmp_path, monkeypatch):
    use_stand_ins(monkeypatch)
    out, timed, whole = (tmp_path / name for name in ('out', 'timed', 'whole'))
    assert benchmark.run_all(PLANS, whole) == {}
    expected = results(whole)
    Path(f'{out}.misbehave').write_text('slow')
    Path(f'{timed}.misbehave').write_text('slow')
    start = time.monotonic()
    assert benchmark.run_all(PLANS, timed) == {}
    length = time.monotonic() - start
    generator = random.Random(0)
    kills = 0
    for _ in range(3 * KILLS):
        if kills == KILLS:
            break
        seconds = generator.uniform(0, 0.9 * length)
        kills += killed(lambda: benchmark.run_all(PLANS, out), seconds, generator.random() < 0.5)
        found = results(out)
        assert found == {name: expected[name] for name in found}
        runs, problems = load_runs([out]) if out.exists() else ([], [])
        assert sorted(run.name for run in runs) == sorted(found), problems
        assert all('has not ended' in problem or 'neither' in problem for problem in problems)
        if len(found) == len(PLANS):
            shutil.rmtree(out)
    assert kills == KILLS
    assert benchmark.run_all(PLANS, out) == {}
    assert results(out) == expected


def test_a_report(tmp_path, monkeypatch):
    write_records(tmp_path / 'runs', losses=('CE', 'Recall'), seeds=(0,))
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    render_report([tmp_path / 'runs'], whole, '2026-01-01')
    write = out_folder.write_atomically

    def slowly(path: Path, data: bytes) -> None:
        time.sleep(0.05)
        write(path, data)

    monkeypatch.setattr(out_folder, 'write_atomically', slowly)
    generator = random.Random(0)
    dates = [f'2026-01-{day:02}' for day in range(2, 2 + KILLS)]
    start = time.monotonic()
    render_report([tmp_path / 'runs'], tmp_path / 'timed', '2026-01-01')
    length = time.monotonic() - start
    mine = {out / 'notes.md': b'mine', out / 'figures' / 'mine-1.svg': b'mine'}
    for i, date in enumerate(dates):
        seconds = length - generator.uniform(0, 1)
        killed(lambda date=date: render_report([tmp_path / 'runs'], out, date), seconds, True)
        if i == 0:
            render_report([tmp_path / 'runs'], out, date)
            for path, content in mine.items():
                path.write_bytes(content)
        assert {path: path.read_bytes() for path in mine} == mine
    render_report([tmp_path / 'runs'], out, '2026-01-01')
    for path in mine:
        path.unlink()
    temporary = [path for path in out.rglob('*.tmp')]
    assert len(temporary) <= KILLS
    found = {p.relative_to(out): p.read_bytes() for p in out.rglob('*.*') if p not in temporary}
    assert found == {p.relative_to(whole): p.read_bytes() for p in whole.rglob('*.*')}
