"""The record of one run: everything that a report needs, in one JSON file."""

from __future__ import annotations

import json
import math
import platform
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS

from ..checkpoints import checkpoint_step
from ..config import datasets, is_classification
from ..evaluation import Areas, load_areas
from ..evaluation import areas as A
from ..files import write_atomically
from ..literal_config import parse_config
from ..losses.class_counts import check_class_names, load_class_counts, load_class_names
from ..stack import MMPRETRAIN, STACKS
from . import work_dir as W
from .describe import describe
from .image_areas import pack
from .panel import image_names, make_panel
from .plan import Plan
from .schema import fault_of

FORMAT = 'mmseg_recall run record 1'
TOLERANCE = 0.011
STACK = [dist for stacks in (STACKS, MMPRETRAIN) for dists in stacks.values() for dist in dists]
DISTRIBUTIONS = 'torch', 'numpy', *STACK, 'scikit-learn'


def complete_record(
    plan: Plan,
    work_dir: Path,
    checkpoint: str,
    metrics: dict[str, float],
    process_memory: float | None,
) -> dict[str, Any]:
    """The record of a run that was trained and tested.

    Args:
        plan: Of the run.
        work_dir: Of the run, with ``areas.npz`` and ``predictions/`` of the test.
        checkpoint: Path or URL of the one that was tested.
        metrics: What that test found.
        process_memory: Peak resident memory of the training process in MiB, if known.

    Returns:
        What :func:`write_record` takes. ``areas`` are sums over the test images, from which every
        data-set-level metric can be computed again, ``image_areas`` those of each image, see
        :mod:`mmseg_recall.comparison.image_areas`; ``metrics`` is what the test printed, in per
        cent; ``curves`` see :func:`mmseg_recall.comparison.work_dir.weight_curves`; ``panel`` see
        :mod:`mmseg_recall.comparison.panel`. Of a classifier, images are counted as pixels are.
        Neither it nor a head on frozen features has a panel.

    Raises:
        ValueError: The metrics are not those of the areas.
    """
    cfg = parse_config(plan.config, plan.name)
    images, classes = load_areas(work_dir / 'areas.npz')
    lines = W.scalars(work_dir)
    seconds, gpu_memory = W.speed_and_memory(lines)
    classifies = is_classification(cfg)
    metrics = {
        k.removeprefix('accuracy/'): v for k, v in metrics.items() if k not in ('time', 'data_time')
    }
    total = Areas(*(area.sum(axis=0) for area in images))
    check_metrics(total, metrics, plan.name)
    return {
        **_identity(plan, cfg),
        'status': 'complete',
        'checkpoint': {'rule': plan.checkpoint, 'step': checkpoint_step(checkpoint)},
        'classes': classes,
        'palette': palette_of(cfg),
        'training_pixels': training_pixels(cfg, len(classes), classes),
        'images': int(images.label.sum()) if classifies else len(images.label),
        'areas': {k: v.tolist() for k, v in total._asdict().items()},
        'image_areas': None if classifies else _image_areas(cfg, images),
        'metrics': metrics,
        'seconds_per_iteration': seconds,
        'memory_mib': {'process': process_memory, 'gpu': gpu_memory},
        'curves': W.weight_curves(lines),
        'panel': []
        if classifies or 'frozen_features' in cfg
        else make_panel(cfg, images, classes, work_dir / 'predictions'),
    }


def _image_areas(cfg: Config, images: Areas) -> dict[str, Any] | None:
    """Those of each image by its name; None where the names are not to be had any more."""
    try:
        return pack(images, image_names(cfg))
    except Exception as error:  # of any dataset: the record is worth more than the names
        warnings.warn(f'the record has no areas of each image: {error}', stacklevel=2)
        return None


def failed_record(plan: Plan, stage: str, returncode: int | None, log: str) -> dict[str, Any]:
    """The record of a run whose training or test (``stage``) failed, of None without an error."""
    cfg = parse_config(plan.config, plan.name)
    failure = {'stage': stage, 'returncode': returncode, 'log_tail': log}
    return {**_identity(plan, cfg), 'status': 'failed', 'failure': failure}


def means_of(areas: Areas, metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics of a record that its areas give, in per cent; NaN where they give none."""
    overall = 100 * areas.intersect.sum() / areas.label.sum()
    if 'top1' in metrics:
        return {'top1': overall}
    means = {'mIoU': A.mean(A.iou(areas)), 'mAcc': A.mean(A.accuracy(areas))}
    return {'aAcc': overall, **{name: 100 * value for name, value in means.items()}}


def check_metrics(areas: Areas, metrics: dict[str, Any], name: str) -> None:
    """Check what a test printed against the areas that it counted.

    Raises:
        ValueError: They do not agree; names both.
    """
    for metric, value in means_of(areas, metrics).items():
        # How a mean counts a class that nothing scores is an option of the metric.
        known = metric in ('aAcc', 'top1') or areas.label.all()
        printed = metrics.get(metric)
        # Printed with two digits, from float32.
        if known and printed is not None and not abs(printed - value) < TOLERANCE:
            raise ValueError(
                f'{name}: the test printed {metric} {printed:.2f}, and the areas that it counted '
                f'give {value:.2f}; test it again'
            )


def failure_of(record: dict[str, Any]) -> str:
    """Why a run failed, in one line."""
    failure = record['failure']
    last = (failure['log_tail'].strip().splitlines() or ['no output'])[-1]
    status = failure['returncode']
    ended = '' if status is None else f' ended with status {status}'
    return f'{failure["stage"]}{ended}: {last}'


def _identity(plan: Plan, cfg: Config) -> dict[str, Any]:
    return {
        'format': FORMAT,
        'name': plan.name,
        'config_file': plan.config_file,
        'config': plan.config,
        'seed': plan.seed,
        'setup': describe(cfg),
        'versions': versions(),
        'device': device_name(),
    }


def versions() -> dict[str, str]:
    """Python, this package and what it runs on."""
    from .. import __version__

    found = {'python': platform.python_version(), 'mmseg_recall': __version__}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """The GPU, or the kind of CPU with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f'{platform.machine()} CPU'


def palette_of(cfg: Config) -> list[list[int]] | None:
    """RGB of each class of the test set; None where none is known."""
    dataset = next(datasets(cfg.test_dataloader.dataset))
    meta = {**getattr(DATASETS.get(dataset['type']), 'METAINFO', {}), **dataset.get('metainfo', {})}
    palette = meta.get('palette')
    return None if palette is None else [list(map(int, colour)) for colour in palette]


def training_pixels(
    cfg: Config, num_classes: int, classes: list[str] | None = None
) -> list[int] | None:
    """N_c of the training set where the config knows it.

    Raises:
        ValueError: The file of counts is none, or of other ``classes``.
    """
    source = cfg.get('class_counts')
    if source is None or (isinstance(source, str) and not Path(source).is_file()):
        return None
    pixels = load_class_counts(source).tolist()
    if len(pixels) != num_classes:
        return None
    if classes is not None:
        check_class_names(load_class_names(source), classes, f'the class counts in {source}')
    return [int(n) for n in pixels]


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as strict JSON, whole or not at all; NaN becomes null."""
    text = json.dumps(_strict(record), indent=1, allow_nan=False, ensure_ascii=False)
    # A list of numbers on one line. (JSON strings hold no line break, so no string is touched.)
    text = re.sub(r'\[\n[^][{}"]*\]', lambda match: ' '.join(match[0].split()), text)
    write_atomically(path, f'{text}\n'.encode())


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strict(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: No file, not JSON, not a record, or a damaged one; names the file.
    """
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f'{path}: no record, or a damaged one ({error})') from error
    if not isinstance(record, dict) or record.get('format') != FORMAT:
        raise ValueError(f'{path}: not a run record (its "format" is not {FORMAT!r})')
    fault = fault_of(record)
    if fault is not None:
        raise ValueError(f'{path}: damaged record, {fault}')
    return record
