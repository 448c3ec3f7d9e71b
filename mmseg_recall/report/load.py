"""Find runs: our records, and work directories of stock mmseg; say what is wrong with the rest.

A run is left out, with a sentence that names it, where it has not ended, has diverged, contradicts
itself, or is in doubt: two results of one seed, or two tests of which either may be the newer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from ..comparison import work_dir as W
from ..comparison.describe import describe
from ..comparison.identity import Identity, differences, digest, identity
from ..comparison.image_areas import unpack
from ..comparison.record import check_metrics, failure_of, means_of, palette_of, read_record
from ..config import type_name
from ..evaluation import areas as A
from ..literal_config import parse_config
from ..out_folder import read_manifest


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model, wherever it was found.

    Attributes:
        name: Of the record or work directory.
        loss: Label of the loss.
        seed: None if unknown.
        setup: See :func:`mmseg_recall.comparison.describe.describe`.
        classes: Names of the C classes; empty if no per-class values were found.
        per_class: IoU, Acc, Precision, F1: (C,) per cent, NaN where undefined or unknown.
        metrics: aAcc, mIoU, mAcc, ... in per cent; 'tau=0.5/mIoU' and its like are of adjusted
            logits, 'threshold=0.5/mIoU' of one channel
            (see :class:`mmseg_recall.evaluation.PerClassIoUMetric`).
        pixels: Pixels of each class, (C,), in the training set or, if unknown, in the test set;
            None if neither is known.
        pixels_of: 'training' or 'test'.
        seconds: Per iteration; None if unknown.
        memory: Peak MiB, of the GPU or else of the process; None if unknown.
        memory_of: 'GPU' or 'process'.
        evaluated: On what, in words.
        images: Areas of each test image, (images, C); None where the totals alone are known.
        image_names: Stems of their files.
        first_found: The iteration by which each class is found, (C,), NaN if never; empty if
            unknown.
        curves: See :func:`mmseg_recall.comparison.work_dir.weight_curves`.
        panel: See :mod:`mmseg_recall.comparison.panel`.
        palette: RGB of each class, or None.
        config_file: As named by the user.
        path: Of the record or work directory.
        config: See :class:`mmseg_recall.comparison.identity.Identity`.
        compared: What else has to be the same in all runs of a comparison, by name.
        software: Versions and device in words; '' if unknown.
    """

    name: str
    loss: str
    seed: int | None
    setup: dict[str, Any]
    classes: tuple[str, ...]
    per_class: dict[str, np.ndarray]
    metrics: dict[str, float]
    pixels: np.ndarray | None = None
    pixels_of: str = ''
    seconds: float | None = None
    memory: float | None = None
    memory_of: str = ''
    evaluated: str = ''
    curves: dict[str, Any] | None = None
    panel: tuple[dict[str, Any], ...] = ()
    palette: tuple[tuple[int, int, int], ...] | None = None
    config_file: str = ''
    software: str = ''
    path: Path = Path()
    config: Identity = field(default_factory=lambda: Identity({}, {}))
    compared: dict[str, Any] = field(default_factory=dict)
    images: A.Areas | None = None
    image_names: tuple[str, ...] = ()
    first_found: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def accuracy(self) -> np.ndarray:
        """Of each class, (C,) per cent; empty where no per-class values were found."""
        return self.per_class.get('Acc', np.empty(0))


def load_runs(paths: Sequence[Path], trust_configs: bool = False) -> tuple[list[Run], list[str]]:
    """Every run below the given paths, and what is wrong with the ones that cannot be used.

    Returns:
        Runs, ordered by name; problems, each a sentence that names the file.
    """
    runs: list[Run] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            problems.append(f'{path}: does not exist')
            continue
        found = False
        for kind, item in _find(path):
            found = True
            # A run may be named twice, by itself and by its folder.
            if item.resolve() in seen:
                continue
            seen.add(item.resolve())
            try:
                if kind == 'unfinished':
                    raise ValueError(
                        f'{item}: this run has not ended; call tools/benchmark.py again'
                    )
                if kind == 'record':
                    runs.append(_from_record(item))
                else:
                    runs.append(_from_work_dir(item, trust_configs))
                nans = [name for name, value in runs[-1].metrics.items() if np.isnan(value)]
                if nans:
                    said = f'{", ".join(nans)} NaN; what is said of its loss is of the other seeds'
                    problems.append(f'{item}: {said}')
            except ValueError as error:
                problems.append(str(error))
            # Whatever is wrong with one, the others are reported.
            except Exception as error:
                problems.append(f'{item}: damaged ({type(error).__name__}: {error})')
        if not found:
            problems.append(
                f'{path}: neither a record (NAME.json of tools/benchmark.py) nor a work directory '
                'of mmseg (config and dated folders) in it'
            )
    runs, doubtful = _once(_tell_losses_apart(runs))
    return sorted(_metrics_of_all(runs), key=lambda run: run.name), problems + doubtful


def _tell_losses_apart(runs: list[Run]) -> list[Run]:
    """Give losses of one label that differ in an option that it leaves out labels that tell."""
    by_label: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        same_label = by_label.setdefault((run.setup['key'], run.loss), {})
        same_label.setdefault(run.setup.get('loss_key', ''), []).append(run)
    named: list[Run] = []
    for losses in by_label.values():
        groups = [group for members in losses.values() for group in _by_counts(members)]
        firsts = [group[0] for group in groups]
        texts = differences(
            [{**r.config.setup, **r.config.loss, 'training_pixels': _counts(r)} for r in firsts]
        )
        for group, text in zip(groups, texts, strict=True):
            label = f'{group[0].loss} ({text})' if text else group[0].loss
            named += [replace(run, loss=label) for run in group]
    return named


def _by_counts(runs: list[Run]) -> list[list[Run]]:
    """Runs of one loss by the counts of the training set; unknown ones are those of the first."""
    groups: dict[tuple[int, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: _counts(run) is None):
        counts = _counts(run)
        key = next(iter(groups), ()) if counts is None else tuple(counts)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _counts(run: Run) -> list[int] | None:
    known = run.pixels is not None and run.pixels_of == 'training'
    return np.asarray(run.pixels).tolist() if known else None


def _once(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Each seed of a loss once: of equal runs the first, of different ones none."""
    by_seed: dict[tuple, list[Run]] = {}
    for run in runs:
        # Where the seed is not known, each may have been another.
        seed = run.path if run.seed is None else run.seed
        by_seed.setdefault((run.setup['key'], run.loss, seed), []).append(run)
    kept, doubtful = [], []
    for first, *others in by_seed.values():
        different = [run for run in others if not _same_result(run, first)]
        if different:
            names = ', '.join(str(run.path) for run in [first, *different])
            doubtful.append(
                f'{names}: different results of {first.loss} with seed {first.seed}; none is used. '
                'Leave out all but one'
            )
        else:
            kept.append(first)
    return kept, doubtful


def _metrics_of_all(runs: list[Run]) -> list[Run]:
    """Leave out what only some seeds of a loss have: a mean over these is not that of the seeds."""
    known: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        names = known.setdefault((run.setup['key'], run.loss), set(run.metrics))
        names &= set(run.metrics)
    return [
        replace(
            run,
            metrics={
                name: value
                for name, value in run.metrics.items()
                # The curve of adjusted logits is drawn of the seeds that have it.
                if is_of_grid(name) or name in known[run.setup['key'], run.loss]
            },
        )
        for run in runs
    ]


def is_of_grid(name: str) -> bool:
    """Whether a metric is of adjusted logits, or of another threshold."""
    return name.startswith(('tau=', 'threshold='))


def _same_result(run: Run, other: Run) -> bool:
    return run.metrics == other.metrics and all(
        np.array_equal(values, other.per_class[name], equal_nan=True)
        for name, values in run.per_class.items()
    )


def _find(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[str, Path]]:
    if path.resolve() in above:
        return  # a link in a circle
    if path.is_file():
        yield 'record', path
        return
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith('.'))
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    is_work_dir = any(W.TIMESTAMP.fullmatch(p.name) for p in folders) or any(
        p.name == 'last_checkpoint' for p in files
    )
    if is_work_dir or not (files or folders):
        yield 'work_dir', path
        return
    records = {p.stem for p in files if p.suffix == '.json'}
    manifest = read_manifest(path)
    compared = manifest is not None and manifest.tool == 'benchmark'
    for file in files:
        if file.suffix == '.json':
            yield 'record', file
    for folder in folders:
        # The work directory of a run that has a record says nothing more.
        if folder.name in records:
            continue
        if compared and (path / f'{folder.name}.py').is_file():
            yield 'unfinished', folder
        else:
            yield from _find(folder, (*above, path.resolve()))


def _from_record(path: Path) -> Run:
    record = read_record(path)
    if record['status'] != 'complete':
        raise ValueError(f'{path}: this run failed; {failure_of(record)}')
    try:
        config = identity(parse_config(record['config'], path))
    except (AttributeError, TypeError) as error:
        raise ValueError(f'{path}: its config is none of a run ({error})') from error
    areas = A.Areas(*(np.array(record['areas'][name], dtype=np.int64) for name in A.Areas._fields))
    training = record['training_pixels']
    memory = record['memory_mib']
    checkpoint = record['checkpoint']
    versions = ', '.join(f'{k} {v}' for k, v in record['versions'].items())
    check_metrics(areas, record['metrics'], str(path))
    images, names = _image_areas(record, areas, path)
    compared = {
        'checkpoint': checkpoint['rule'],
        'classes': record['classes'],
        'test_labels': areas.label.tolist(),
    }
    return Run(
        name=record['name'],
        loss=record['setup']['loss'],
        seed=record['seed'],
        setup={**record['setup'], 'key': digest([record['setup']['key'], compared])},
        classes=tuple(record['classes']),
        per_class={name: 100 * f(areas) for name, f in A.PER_CLASS.items()},
        # What is null, too, follows from the areas; so do the values of a class.
        metrics=means_of(areas, record['metrics'])
        | {
            k: float(v)
            for k, v in record['metrics'].items()
            if v is not None and ('/' not in k or is_of_grid(k))
        },
        pixels=areas.label if training is None else np.array(training),
        pixels_of='test' if training is None else 'training',
        seconds=record['seconds_per_iteration'],
        memory=memory['gpu'] or memory['process'],
        memory_of='GPU' if memory['gpu'] else 'process',
        evaluated=f'{record["images"]} test images, {checkpoint["rule"]} checkpoint '
        f'({checkpoint["step"]})',
        curves=record['curves'],
        panel=tuple(record['panel']),
        palette=_as_palette(record['palette']),
        config_file=record['config_file'],
        software=f'{record["device"]}; {versions}',
        path=path,
        config=config,
        compared=compared,
        images=images,
        image_names=names,
        # None is of a class that is never found.
        first_found=np.array(record.get('per_class', {}).get('first_found', []), dtype=float),
    )


def _image_areas(
    record: dict[str, Any], areas: A.Areas, path: Path
) -> tuple[A.Areas | None, tuple[str, ...]]:
    packed = record.get('image_areas')  # records of earlier versions have none
    if packed is None:
        return None, ()
    try:
        images, names = unpack(packed, len(record['classes']))
    except ValueError as error:
        raise ValueError(f'{path}: damaged record, {error}') from error
    if not all(np.array_equal(i.sum(axis=0), a) for i, a in zip(images, areas, strict=True)):
        raise ValueError(f"{path}: damaged record, 'image_areas' do not sum to 'areas'")
    return images, names


def _from_work_dir(path: Path, trust_configs: bool) -> Run:
    if not any(path.iterdir()):
        raise ValueError(f'{path}: empty work directory, without a config or a log')
    cfg = _read_config(path, trust_configs)
    tested = W.newest_test(path)
    found = tested or W.last_validation(path)
    if found is None:
        raise ValueError(
            f'{path}: no result, neither of a test (DATE/DATE.json with mIoU) nor of a validation '
            '(mIoU in DATE/vis_data/scalars.json)'
        )
    values, attempt = found
    table = W.class_table(attempt) or {'Class': []}
    lines = W.scalars(path)
    _refuse_unfinished(path, cfg, lines, tested is not None)
    seconds, memory = W.speed_and_memory(lines)
    try:
        setup = describe(cfg)
    except Exception as error:  # of whatever a config may lack
        raise ValueError(f'{path}: its config lacks what a segmentor needs ({error})') from error
    compared = {'evaluated': 'test' if tested else 'validation', 'classes': table['Class']}
    return Run(
        name=path.name,
        loss=setup['loss'],
        seed=(cfg.get('randomness') or {}).get('seed'),
        setup={**setup, 'key': digest([setup['key'], compared])},
        classes=tuple(table['Class']),
        per_class=_per_class(table),
        metrics={
            k: float(v)
            for k, v in values.items()
            if isinstance(v, (int, float)) and k not in ('time', 'data_time', 'step', 'iter')
        },
        seconds=seconds,
        memory=memory,
        memory_of='GPU' if memory else '',
        evaluated='test' if tested else f'last validation (iteration {values.get("step", "")})',
        curves=W.weight_curves(lines),
        palette=_as_palette(palette_of(cfg)),
        config_file=cfg.filename or '',
        path=path,
        config=identity(cfg),
        compared=compared,
    )


def _refuse_unfinished(path: Path, cfg: Config, lines: list[dict[str, Any]], tested: bool) -> None:
    training = W.training_lines(lines)
    if not training:
        return  # a folder of a test alone
    since = W.diverged(lines)
    if since is not None:
        raise ValueError(f'{path}: diverged, its loss is not finite from iteration {since} on')
    train_cfg = cfg.get('train_cfg') or {}
    unit = 'iterations' if 'max_iters' in train_cfg else 'epochs'
    steps = train_cfg.get('max_iters') or train_cfg.get('max_epochs') or 0
    done = W.steps_done(path, unit)
    hooks = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    stops_early = any(type_name(hook) == 'EarlyStoppingHook' for hook in hooks if hook)
    if done < steps and not (stops_early and tested):
        raise ValueError(f'{path}: its training has not ended, {done} of {steps} {unit} are done')


def _read_config(path: Path, trust_configs: bool) -> Config:
    files = sorted(path.glob('*.py')) or sorted(path.glob('*/vis_data/config.py'))
    if not files:
        raise ValueError(f'{path}: no config (NAME.py, or DATE/vis_data/config.py)')
    try:
        if trust_configs:
            return Config.fromfile(files[-1], import_custom_modules=False)
        return parse_config(files[-1].read_text(encoding='utf-8'), files[-1])
    # A config is Python: a damaged one may raise anything.
    except Exception as error:
        advice = '' if trust_configs else '. If you trust it, --trust-configs runs it'
        raise ValueError(f'{files[-1]}: cannot be read as a config ({error}){advice}') from error


def _per_class(table: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    unknown = np.full(len(table['Class']), np.nan)
    iou, acc = (np.array(table.get(name, unknown), dtype=float) for name in ('IoU', 'Acc'))
    with np.errstate(divide='ignore', invalid='ignore'):
        # From 1 / IoU = 1 / precision + 1 / recall - 1; a class without a hit has none to show.
        precision = 100 / (100 / iou + 1 - 100 / acc)
        precision = np.where(iou > 0, np.array(table.get('Precision', precision)), np.nan)
        f1 = 2 * iou / (100 + iou) * 100
    return {'IoU': iou, 'Acc': acc, 'Precision': precision, 'F1': f1}


def _as_palette(colours: Any) -> tuple[tuple[int, int, int], ...] | None:
    return None if colours is None else tuple((int(r), int(g), int(b)) for r, g, b in colours)
