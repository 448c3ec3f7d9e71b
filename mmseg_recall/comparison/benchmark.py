"""Train and test every planned run with the stock scripts, and keep a record of each.

A folder of a comparison has, for each run: ``NAME.py`` (its config), ``NAME/`` (its work
directory, with the output of the scripts in ``benchmark.log``) and, when it has ended,
``NAME.json`` (its record).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..checkpoints import best_checkpoint, checkpoint_step, last_checkpoint
from ..datasets.files import write_atomically
from . import work_dir as W
from .describe import is_classification, last_head
from .plan import Plan, areas_metric
from .record import (
    complete_record,
    failed_record,
    read_record,
    training_pixels,
    write_record,
)

SCRIPT = 'from mmseg_recall.stack import run_stock_script; run_stock_script({!r}, {!r})'
LOG_TAIL_LINES = 40
POLL_SECONDS = 0.5
SHOWN = ('mAcc', 'mIoU', 'aAcc', 'top1', 'few')


class Stopped(Exception):
    """The comparison was told to stop."""


class RunFailed(Exception):
    """A script ended with an error; the arguments are its stage and its exit status."""


class Usage(NamedTuple):
    """What a process cost: exit status, peak resident memory in MiB."""

    returncode: int
    memory_mib: float


def run_all(plans: list[Plan], out: Path, jobs: int = 1) -> dict[str, str]:
    """Bring every run to its end, whatever state a former, killed call left it in.

    A run with a complete record is skipped; one that was cut off resumes from its last
    checkpoint; one that fails is recorded and the others go on.

    Args:
        plans: Of :func:`mmseg_recall.comparison.plan_runs`.
        out: Folder of the comparison.
        jobs: Runs at a time. The cores are shared out among them through OMP_NUM_THREADS, unless
            the environment sets that.

    Returns:
        The reason of each failed run, by name; empty if all went well.

    Raises:
        ValueError: ``out`` holds a run of the same name with another config.
    """
    out.mkdir(parents=True, exist_ok=True)
    pending = [plan for plan in plans if not _is_complete(plan, out)]
    env = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    iterations = {plan.name: _iterations(plan) for plan in pending}
    failures: dict[str, str] = {}
    stop = threading.Event()
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('ETA'),
        # Iterations are logged minutes apart on a CPU; the default forgets after 30 seconds.
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with (
        Progress(*columns, speed_estimate_period=7200) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        show = progress.console.print
        show(f'{len(plans) - len(pending)} of {len(plans)} runs are complete')
        started = {name: W.last_step(out / name) for name in iterations}
        total = sum(iterations.values()) - sum(started.values())
        overall = progress.add_task('all runs', total=total)
        bars = {
            plan.name: progress.add_task(plan.name, total=iterations[plan.name], visible=False)
            for plan in pending
        }
        futures = {pool.submit(_run, plan, out, env, stop): plan for plan in pending}
        watcher = threading.Thread(
            target=_watch, args=(progress, overall, bars, started, out, stop), daemon=True
        )
        watcher.start()
        try:
            for future in as_completed(futures):
                plan = futures[future]
                progress.update(bars[plan.name], completed=iterations[plan.name], visible=False)
                record = future.result()
                if record['status'] == 'failed':
                    failures[plan.name] = _reason(record)
                    show(f'[red]failed[/]  {plan.name}: {failures[plan.name]}')
                else:
                    metrics = record['metrics']
                    show(f'[green]done[/]    {plan.name}: {_summary(metrics)}')
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        finally:
            stop.set()
            watcher.join()
    return failures


def _summary(metrics: dict[str, float]) -> str:
    return '  '.join(f'{name} {metrics[name]:.2f}' for name in SHOWN if name in metrics)


def _reason(record: dict[str, Any]) -> str:
    failure = record['failure']
    lines = failure['log_tail'].strip().splitlines() or ['no output']
    return f'{failure["stage"]} ended with status {failure["returncode"]}: {lines[-1]}'


def _watch(
    progress: Progress,
    overall: Any,
    bars: dict[str, Any],
    started: dict[str, int],
    out: Path,
    stop: threading.Event,
) -> None:
    while not stop.wait(2 * POLL_SECONDS):
        done = 0
        for task in progress.tasks:
            if task.id != overall and not task.finished:
                name = task.description
                step = W.last_step(out / name)
                progress.update(task.id, completed=step, visible=step > started[name])
            if task.id != overall:
                done += int(task.completed) - started[task.description]
        progress.update(overall, completed=done)


def _is_complete(plan: Plan, out: Path) -> bool:
    config = out / f'{plan.name}.py'
    if config.is_file() and config.read_text() != plan.config:
        raise ValueError(
            f'{config}: the config of this run has changed since. Compare in another folder, or '
            f'remove {config}, {config.with_suffix(".json")} and {config.with_suffix("")}'
        )
    record = read_record(out / f'{plan.name}.json')
    if record is None or record['status'] != 'complete':
        return False
    if record['config'] != plan.config or record['checkpoint']['rule'] != plan.checkpoint:
        raise ValueError(
            f'{out / plan.name}.json: made with another config or checkpoint rule. Compare in '
            'another folder, or remove it'
        )
    return True


def _iterations(plan: Plan) -> int:
    train_cfg = Config.fromstring(plan.config, '.py').get('train_cfg')
    # Nothing to train: its load_from is tested.
    if not train_cfg:
        return 0
    return train_cfg.get('max_iters') or train_cfg.max_epochs


def _run(plan: Plan, out: Path, env: dict[str, str], stop: threading.Event) -> dict[str, Any]:
    work_dir, config = out / plan.name, out / f'{plan.name}.py'
    package = 'mmpretrain' if is_classification(Config.fromstring(plan.config, '.py')) else 'mmseg'
    record_path = out / f'{plan.name}.json'
    if not config.is_file():
        write_atomically(config, plan.config.encode())
    work_dir.mkdir(exist_ok=True)
    with _lock(work_dir / 'lock', stop) as lock:
        scripts = _Scripts(package, work_dir / 'benchmark.log', env, lock, stop)
        try:
            memory = _train(plan, config, work_dir, scripts)
            checkpoint = _test(plan, config, work_dir, scripts)
            record = complete_record(plan, work_dir, checkpoint, memory)
        except RunFailed as failure:
            record = failed_record(plan, *failure.args, scripts.tail())
        except Stopped:
            raise
        except Exception as error:
            # Of a data set that trains and tests but cannot be shown: the others go on.
            text = f'{traceback.format_exc()}{type(error).__name__}: {error}'
            record = failed_record(plan, 'the record', 1, text)
        write_record(record_path, record)
    return record


def _train(plan: Plan, config: Path, work_dir: Path, scripts: _Scripts) -> float | None:
    """Train to the end; peak memory of the process in MiB, None if an earlier call trained."""
    checkpoint = last_checkpoint(work_dir)
    done = 0 if checkpoint is None else checkpoint_step(checkpoint)
    if done >= _iterations(plan):
        return None
    arguments = [str(config), '--work-dir', str(work_dir)]
    if checkpoint is not None:
        # Named, because a config's own load_from would win over the search in the work directory.
        arguments += ['--resume', '--cfg-options', f'load_from={checkpoint}']
    usage = scripts.run('train.py', arguments)
    checkpoint = last_checkpoint(work_dir)
    if usage.returncode or checkpoint is None:
        raise RunFailed('training', usage.returncode)
    return usage.memory_mib


def _test(plan: Plan, config: Path, work_dir: Path, scripts: _Scripts) -> str:
    """Test the checkpoint that the rule names; its path or URL."""
    cfg = Config.fromstring(plan.config, '.py')
    if _iterations(plan):
        find = last_checkpoint if plan.checkpoint == 'last' else best_checkpoint
        checkpoint = find(work_dir)
        if checkpoint is None:
            raise ValueError(
                f'{work_dir} has no {plan.checkpoint} checkpoint; remove it to train again'
            )
    elif cfg.get('load_from'):
        checkpoint = cfg.load_from
    else:
        raise ValueError(
            f'{plan.config_file} trains nothing and names no checkpoint: give one with '
            '--cfg-options load_from=FILE'
        )
    evaluators = cfg.test_evaluator
    place = 'test_evaluator'
    if isinstance(evaluators, list):
        place += f'.{evaluators.index(areas_metric(cfg))}'
    options = {f'{place}.areas_file': work_dir / 'areas.npz'}
    if not is_classification(cfg):
        options[f'{place}.output_dir'] = work_dir / 'predictions'
        counts = _curve_counts(cfg)
        if counts is not None:
            options[f'{place}.class_counts'] = counts
    usage = scripts.run(
        'test.py',
        [str(config), str(checkpoint), '--work-dir', str(work_dir), '--cfg-options']
        + [f'{key}={value}' for key, value in options.items()],
    )
    if usage.returncode:
        raise RunFailed('test', usage.returncode)
    return str(checkpoint)


def _curve_counts(cfg: Config) -> list[int] | None:
    """N_c for the curve of post-hoc logit adjustment; None where it cannot be drawn.

    Found at the test, not when runs are planned: the file may be written in between, and a config
    that depended on it would be refused as changed.
    """
    head = last_head(cfg)
    counts = training_pixels(cfg, head.get('out_channels') or head.get('num_classes'))
    # The logits of a config with the option are adjusted already.
    return None if counts is None or 0 in counts or 'logit_adjustment' in cfg else counts


class _Scripts:
    """Runs the stock scripts of one run: where their output goes, and what ends them."""

    def __init__(
        self, package: str, log: Path, env: dict[str, str], lock: int, stop: threading.Event
    ) -> None:
        self.package = package
        self.log = log
        self.env = env
        self.lock = lock
        self.stop = stop

    def run(self, script: str, arguments: list[str]) -> Usage:
        command = [sys.executable, '-c', SCRIPT.format(script, self.package), *arguments]
        with self.log.open('ab') as log:
            # The child holds the lock too: were this process killed, a next one waits for it.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.env, pass_fds=[self.lock]
            )
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                unit = 2**20 if sys.platform == 'darwin' else 2**10
                return Usage(process.returncode, usage.ru_maxrss / unit)
            if self.stop.wait(POLL_SECONDS):
                process.kill()  # nothing is lost by it but what follows the last checkpoint
                process.wait()
                raise Stopped

    def tail(self) -> str:
        lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(lines[-LOG_TAIL_LINES:])


@contextmanager
def _lock(path: Path, stop: threading.Event) -> Iterator[int]:
    """Hold a file lock, waiting for another process that works on the same run."""
    import fcntl  # here, as Windows has none, and reports can be made there

    with path.open('w') as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wait(POLL_SECONDS):
                    raise Stopped from None
        yield file.fileno()
