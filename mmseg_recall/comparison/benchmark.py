"""Train and test every planned run with the stock scripts, and keep a record of each.

A folder of a comparison has, for each run: ``NAME.py`` (its config), ``NAME/`` (its work
directory, with the output of the scripts in ``benchmark.log``, and in ``stage/`` the config that
the last of them was given) and, when it has ended, ``NAME.json`` (its record).
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..checkpoints import best_checkpoint, checkpoint_step, checkpoint_unit, last_checkpoint
from ..config import (
    THRESHOLDS,
    argument,
    is_classification,
    predicting_head,
    training_length,
)
from ..files import write_atomically
from ..literal_config import parse_config
from ..out_folder import claim, write_manifest
from . import work_dir as W
from .plan import Plan, areas_metric
from .record import (
    complete_record,
    failed_record,
    failure_of,
    read_record,
    training_pixels,
    write_record,
)
from .trial import refuse_what_cannot_start

SCRIPT = 'from mmseg_recall.stack import run_stock_script; run_stock_script({!r}, {!r})'
LOG_TAIL_LINES = 40
POLL_SECONDS = 0.5
SHOWN = ('mAcc', 'mIoU', 'aAcc', 'top1', 'few')


class Stopped(Exception):
    """The comparison was told to stop."""


class RunFailed(Exception):
    """A run has no result; the arguments are the stage, its exit status and what it said last."""


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
        FileExistsError: ``out`` has something in it that no comparison has made.
        ValueError: ``out`` holds a run of the same name with another config, or a run cannot be
            built: nothing is started then.
    """
    manifest = claim(out, 'benchmark')
    pending = [plan for plan in plans if not is_complete(plan, out)]
    configs = {plan.name: parse_config(plan.config, plan.config_file) for plan in pending}
    refuse_what_cannot_start(pending, configs)
    write_manifest(out, manifest)
    env = {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    iterations = {plan.name: training_length(configs[plan.name])[0] for plan in pending}
    failures: dict[str, str] = {}
    stop = threading.Event()
    columns = (
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('ETA'),
        # Iterations are logged minutes apart on a CPU; the default forgets after 30 seconds.
        TimeRemainingColumn(),
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
        futures = {
            pool.submit(_run, plan, configs[plan.name], out, env, stop, show): plan
            for plan in pending
        }
        watched = progress, overall, started, out, stop
        watcher = threading.Thread(target=_watch, args=watched, daemon=True)
        watcher.start()
        try:
            for future in as_completed(futures):
                plan = futures[future]
                progress.update(bars[plan.name], completed=iterations[plan.name], visible=False)
                record = future.result()
                if record['status'] == 'failed':
                    failures[plan.name] = failure_of(record)
                    show(f'[red]failed[/]  {escape(f"{plan.name}: {failures[plan.name]}")}')
                else:
                    metrics = record['metrics']
                    show(f'[green]done[/]    {escape(plan.name)}: {summary(metrics)}')
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        finally:
            stop.set()
            watcher.join()
    return failures


def summary(metrics: dict[str, float]) -> str:
    """The means of a run, for a line on the screen."""
    return '  '.join(f'{name} {metrics[name]:.2f}' for name in SHOWN if name in metrics)


def _watch(
    progress: Progress, overall: Any, started: dict[str, int], out: Path, stop: threading.Event
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


def is_complete(plan: Plan, out: Path) -> bool:
    """Whether a run has its record; ValueError if it is of another config."""
    config = out / f'{plan.name}.py'
    for path in (config.with_suffix(''), config.with_suffix('.json')):
        if path.exists() and not config.exists():
            raise FileExistsError(f'{path} has no {config.name} beside it. Move it away')
    if config.is_file() and config.read_text() != plan.config:
        raise ValueError(
            f'{config}: the config of this run has changed since. Compare in another folder, or '
            f'remove {config}, {config.with_suffix(".json")} and {config.with_suffix("")}'
        )
    if not config.with_suffix('.json').exists():
        return False
    record = read_record(config.with_suffix('.json'))
    if record['status'] != 'complete':
        return False
    if record['config'] != plan.config or record['checkpoint']['rule'] != plan.checkpoint:
        raise ValueError(
            f'{out / plan.name}.json: made with another config or checkpoint rule. Compare in '
            'another folder, or remove it'
        )
    return True


def _run(
    plan: Plan,
    cfg: Config,
    out: Path,
    env: dict[str, str],
    stop: threading.Event,
    show: Callable[[str], None],
) -> dict[str, Any]:
    work_dir, config = out / plan.name, out / f'{plan.name}.py'
    if not config.is_file():
        write_atomically(config, plan.config.encode())
    work_dir.mkdir(exist_ok=True)
    with _lock(work_dir / 'lock', stop, show) as lock:
        package = 'mmpretrain' if is_classification(cfg) else 'mmseg'
        scripts = _Scripts(package, work_dir / 'benchmark.log', env, lock, stop)
        try:
            memory = _train(cfg, config, work_dir, scripts)
            checkpoint = _checkpoint(plan, cfg, work_dir)
            metrics = _test(cfg, checkpoint, work_dir, scripts)
            record = complete_record(plan, work_dir, checkpoint, metrics, memory)
        except RunFailed as failure:
            record = failed_record(plan, *failure.args)
        except Stopped:
            raise
        except Exception as error:
            # Of a data set that trains and tests but cannot be shown: the others go on.
            text = f'{traceback.format_exc()}{type(error).__name__}: {error}'
            record = failed_record(plan, 'the record', 1, text)
        write_record(out / f'{plan.name}.json', record)
    return record


def _train(cfg: Config, config: Path, work_dir: Path, scripts: _Scripts) -> float | None:
    """Train to the end; peak memory of the process in MiB, None if an earlier call trained."""
    checkpoint = last_checkpoint(work_dir)
    steps, unit = training_length(cfg)
    if not steps:
        return None
    # A checkpoint that counts in the other unit says nothing: training ends at once if it is done.
    if checkpoint and checkpoint_unit(checkpoint) == unit and checkpoint_step(checkpoint) >= steps:
        return None
    arguments = ['--work-dir', str(work_dir)]
    if checkpoint is not None:
        # Named, because a config's own load_from would win over the search in the work directory;
        # in mmseg by the config, in mmpretrain by the option.
        config = _stage(cfg, work_dir, {'load_from': str(checkpoint)})
        arguments += ['--resume', *([str(checkpoint)] if is_classification(cfg) else [])]
    status, memory = scripts.run('train.py', [str(config), *arguments])
    if status or last_checkpoint(work_dir) is None:
        raise RunFailed('training', status, scripts.tail())
    return memory


def _stage(cfg: Config, work_dir: Path, changes: dict[str, Any]) -> Path:
    """A changed config under the name of the run's own; as options, paths would be parsed."""
    changed = copy.deepcopy(cfg)
    changed.merge_from_dict(changes)
    path = work_dir / 'stage' / f'{work_dir.name}.py'
    write_atomically(path, changed.dump().encode())
    return path


def _checkpoint(plan: Plan, cfg: Config, work_dir: Path) -> str:
    """Path or URL of what the rule names, of a training that has not diverged."""
    if not training_length(cfg)[0]:
        if not cfg.get('load_from'):
            raise ValueError(
                f'{plan.config_file} trains nothing and names no checkpoint: give one with '
                '--cfg-options load_from=FILE'
            )
        return str(cfg.load_from)
    since = W.diverged(W.scalars(work_dir))
    if since is not None:
        message = f'diverged, the loss is not finite from iteration {since} on'
        raise RunFailed('training', None, message)
    find = last_checkpoint if plan.checkpoint == 'last' else best_checkpoint
    checkpoint = find(work_dir)
    if checkpoint is None:
        raise ValueError(
            f'{work_dir} has no {plan.checkpoint} checkpoint; remove it to train again'
        )
    if not _is_finite(checkpoint):
        message = f'diverged, the weights of {checkpoint.name} are not finite'
        raise RunFailed('training', None, message)
    return str(checkpoint)


def _is_finite(checkpoint: Path) -> bool:
    """Whether all weights are finite: the loss is logged now and then only."""
    loaded = torch.load(checkpoint, map_location='cpu', weights_only=True, mmap=True)
    for name, value in loaded['state_dict'].items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            # A buffer may hold infinities, as a mask does.
            is_weight = name.endswith(('weight', 'bias'))
            if value.isnan().any() or (is_weight and value.isinf().any()):
                return False
    return True


def _test(cfg: Config, checkpoint: str, work_dir: Path, scripts: _Scripts) -> dict[str, float]:
    """Test a checkpoint; what the test printed."""
    place = 'test_evaluator'
    if isinstance(cfg.test_evaluator, list):
        place += f'.{cfg.test_evaluator.index(areas_metric(cfg))}'
    options: dict[str, Any] = {f'{place}.areas_file': str(work_dir / 'areas.npz')}
    if not is_classification(cfg):
        options[f'{place}.output_dir'] = str(work_dir / 'predictions')
        options |= {f'{place}.{name}': value for name, value in _curve(cfg).items()}
    config = _stage(cfg, work_dir, options)
    # Not the newest by name: the clock may have been changed in between.
    before = W.result_files(work_dir)
    status, _ = scripts.run('test.py', [str(config), checkpoint, '--work-dir', str(work_dir)])
    written = W.result_files(work_dir).items() - before.items()
    if status or len(written) != 1:
        raise RunFailed('test', status, scripts.tail())
    ((attempt, _),) = written
    return W.test_results(work_dir)[attempt]


def _curve(cfg: Config) -> dict[str, Any]:
    """What the metric needs to score the options that cost no training; {} where it cannot.

    Class counts are found at the test, not when runs are planned: the file may be written in
    between, and a config that depended on it would be refused as changed.
    """
    head = predicting_head(cfg.model)
    if argument(head, 'out_channels') == 1:
        return {'thresholds': THRESHOLDS}
    counts = training_pixels(cfg, argument(head, 'num_classes') or 0)
    # The logits of a config with the option are adjusted already.
    if counts is None or 0 in counts or 'logit_adjustment' in cfg:
        return {}
    return {'class_counts': counts}


class _Scripts(NamedTuple):
    """Runs the stock scripts of one run: where their output goes, and what ends them."""

    package: str
    log: Path
    env: dict[str, str]
    lock: int
    stop: threading.Event

    def run(self, script: str, arguments: list[str]) -> tuple[int, float]:
        """Exit status, and peak resident memory in MiB."""
        command = [sys.executable, '-c', SCRIPT.format(script, self.package), *arguments]
        with self.log.open('ab') as log:
            # The child holds the lock too: were this process killed, a next one waits for it.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.env, pass_fds=[self.lock]
            )
        os.pwrite(self.lock, f'{process.pid:<20}'.encode(), 0)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                unit = 2**20 if sys.platform == 'darwin' else 2**10
                return process.returncode, usage.ru_maxrss / unit
            if self.stop.wait(POLL_SECONDS):
                process.kill()  # nothing is lost by it but what follows the last checkpoint
                process.wait()
                raise Stopped

    def tail(self) -> str:
        lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(lines[-LOG_TAIL_LINES:])


@contextmanager
def _lock(path: Path, stop: threading.Event, show: Callable[[str], None]) -> Iterator[int]:
    """Hold a file lock; wait for another process that works on the same run, and say so."""
    import fcntl  # here, as Windows has none, and reports can be made there

    with path.open('a+') as file:
        waits = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waits:
                    file.seek(0)
                    pid = file.read().strip() or 'of another call'
                    show(
                        f'[yellow]waits[/]   {escape(path.parent.name)}: process {pid} works on it '
                        'for a call that runs or was killed; it can be ended, its checkpoints stay'
                    )
                    waits = True
                if stop.wait(POLL_SECONDS):
                    raise Stopped from None
        yield file.fileno()
