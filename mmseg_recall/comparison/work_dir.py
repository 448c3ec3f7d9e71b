"""Read what mmengine leaves in a work directory: scalars, logs, results.

Its checkpoints are the business of :mod:`mmseg_recall.checkpoints`.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoints import checkpoint_step, checkpoint_unit

TIMESTAMP = re.compile(r'\d{8}_\d{6}')


def attempts(work_dir: Path) -> list[Path]:
    """The folders of each start of a run, oldest first; they are named by their time."""
    if not work_dir.is_dir():
        return []
    return sorted(p for p in work_dir.iterdir() if p.is_dir() and TIMESTAMP.fullmatch(p.name))


def scalar_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a ``scalars.json``; one that a killed run left half-written ends the file."""
    with path.open(encoding='utf-8', errors='replace') as file:
        for line in file:
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                return
            if isinstance(values, dict):
                yield values


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    """All lines of all ``vis_data/scalars.json``, in the order they were written."""
    return [
        line
        for attempt in attempts(work_dir)
        for path in sorted(attempt.glob('vis_data/scalars.json'))
        for line in scalar_lines(path)
    ]


def training_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that training logged, in the order of their steps; each step as it was logged last."""
    by_step = {line['step']: line for line in lines if 'loss' in line and 'step' in line}
    return [by_step[step] for step in sorted(by_step)]


def last_step(work_dir: Path) -> int:
    """The last iteration (or epoch, of an epoch-based loop) that was logged; 0 before the first."""
    lines = training_lines(scalars(work_dir))
    return lines[-1].get('epoch', lines[-1]['step']) if lines else 0


def steps_done(work_dir: Path, unit: str) -> int:
    """How many iterations or epochs (``unit``) are behind a run for certain."""
    pointer = work_dir / 'last_checkpoint'
    named = [pointer.read_text(errors='replace').strip()] if pointer.is_file() else []
    checkpoints = [*named, *map(str, work_dir.glob('*.pth'))]
    steps = [checkpoint_step(path) for path in checkpoints if checkpoint_unit(path) == unit]
    lines = scalars(work_dir)
    if unit == 'iterations':
        # Of validations, too: losses are logged every 50 iterations.
        steps += [line['step'] for line in lines if isinstance(line.get('step'), int)]
    else:
        steps += [line['epoch'] - 1 for line in lines if isinstance(line.get('epoch'), int)]
    return max(steps, default=0)


def diverged(lines: list[dict[str, Any]]) -> int | None:
    """The iteration from which on the loss is not finite; None if it is at the end."""
    since = None
    for line in training_lines(lines):
        if math.isfinite(line['loss']):
            since = None
        elif since is None:
            since = line['step']
    return since


def speed_and_memory(lines: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Median seconds an iteration, and peak GPU memory in MiB, from the training lines."""
    training = [line for line in lines if 'loss' in line]
    # The first interval contains the start of the data loaders.
    times = [line['time'] for line in training[1:] or training if 'time' in line]
    memory = [line['memory'] for line in training if 'memory' in line]
    return (statistics.median(times) if times else None), (max(memory) if memory else None)


def weight_curves(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What ClassWeightHook logged of the decode head, as curves over iterations.

    Returns:
        ``{'iterations': [...], 'weight': {class: [...]}, 'recall': ..., 'pixel_share': ...}``
        with None where a class was absent, 4 significant digits; None if it logged nothing. What
        a killed run logged after its last checkpoint is replaced by what the resumed one did.
    """
    heads = {
        k.split('/')[0] for line in lines for k in line if re.match('decode_head.*/weight/', k)
    }
    if not heads:
        return None
    # The first, if a head has several losses that weigh classes.
    head = min(heads)
    logged = {line['step']: line for line in lines if any(k.startswith(f'{head}/') for k in line)}
    steps = sorted(logged)
    curves: dict[str, Any] = {'iterations': steps}
    for key in logged[steps[-1]]:
        if key.startswith(f'{head}/'):
            _, quantity, name = key.split('/', 2)
            values = [logged[step].get(key, math.nan) for step in steps]
            curves.setdefault(quantity, {})[name] = [_short(value) for value in values]
    return curves


def _short(value: float) -> float | None:
    return float(f'{value:.4g}') if math.isfinite(value) else None


def test_results(work_dir: Path) -> dict[Path, dict[str, float]]:
    """What each test run found, by the folder of that run, oldest first by their names."""
    found = {}
    for attempt in attempts(work_dir):
        path = attempt / f'{attempt.name}.json'
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and ('mIoU' in values or 'accuracy/top1' in values):
            found[attempt] = values
    return found


def result_files(work_dir: Path) -> dict[Path, int]:
    """When the results of each test run were written, by the folder of that run."""
    return {
        attempt: (attempt / f'{attempt.name}.json').stat().st_mtime_ns
        for attempt in test_results(work_dir)
    }


def newest_test(work_dir: Path) -> tuple[dict[str, float], Path] | None:
    """What the newest test run found, and the folder of that run; None without a test run.

    Raises:
        ValueError: Folders are named by the local time, whose order is not that of the files,
            as after a change of the clock, and the results differ.
    """
    found = test_results(work_dir)
    if not found:
        return None
    last = list(found)[-1]
    written = result_files(work_dir)
    newest = max(written, key=lambda attempt: (written[attempt], attempt.name))
    if _metrics_of(found[newest]) != _metrics_of(found[last]):
        raise ValueError(
            f'{work_dir}: which test is the newest is not certain, {last.name} by its name and '
            f'{newest.name} by the time of its file; remove one of these folders'
        )
    return found[last], last


def _metrics_of(values: dict[str, float]) -> str:
    return json.dumps({k: v for k, v in values.items() if k not in ('time', 'data_time')})


def last_validation(work_dir: Path) -> tuple[dict[str, float], Path] | None:
    """What the validation of the most iterations found, and the folder of that run, or None."""
    found = [
        (line, attempt)
        for attempt in attempts(work_dir)
        for path in attempt.glob('vis_data/scalars.json')
        for line in scalar_lines(path)
        if 'mIoU' in line
    ]
    # Of equals, the one of the newest folder.
    return max(reversed(found), key=lambda pair: pair[0].get('step', 0), default=None)


def class_table(attempt: Path) -> dict[str, list[Any]] | None:
    """The last per-class table in a run's log, by column; None if the log has none.

    Values are per cent, as IoUMetric prints them; the column 'Class' has the names.
    """
    for path in sorted(attempt.glob('*.log'), reverse=True):
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
        heads = [i for i, line in enumerate(lines) if re.match(r'\|\s*Class\s*\|', line)]
        if heads:
            rows = []
            for line in lines[heads[-1] :]:
                if line.startswith('|'):
                    rows.append([cell.strip() for cell in line.strip('|').split('|')])
                elif not line.startswith('+'):
                    break
            header, *body = rows
            body = [row for row in body if len(row) == len(header)]
            columns = zip(*body, strict=True)
            return {
                name: list(column) if name == 'Class' else [_number(cell) for cell in column]
                for name, column in zip(header, columns, strict=False)
            }
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
