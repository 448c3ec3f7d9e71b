"""What a trained model says on the test images: the rule of thumb, and what costs no training."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track

from ..config import THRESHOLD, THRESHOLDS, argument, as_list, predicting_head
from ..datasets.class_statistics import build_dataset
from ..datasets.labels import ClassCount, distinct_items
from ..evaluation import Areas
from ..evaluation.areas import areas_of, iou
from ..evaluation.operating_point import GRID, Pixels, fit_offsets, joined, pixels_of
from ..statistics import Estimate, estimate, resamples, with_interval
from .advice import METRICS
from .trained import best_of_grid, found_classes, has_learnt, rule_of_thumb

KEPT_VALUES = 40_000_000
"""Of the logits of all images; where there are more, the grid of pixels is wider."""
FITTED_VALUES = 10_000_000
PRECISION = 100_000
TRAINING = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    *('val_dataloader', 'val_cfg', 'val_evaluator'),
)


class Offsets(NamedTuple):
    """What is added to the logits of each class, and what it gains."""

    values: list[float]
    """Of each class; 0 of one that no pixel shows."""
    gain: tuple[float, float, float]
    """In mIoU on held-out images, in points, and both ends of its interval of 95% over images."""
    images: int
    """On which it was scored."""
    held_out: str
    """Which images these are, in words."""
    iou: list[tuple[float | None, float | None]]
    """Of each class, per cent, as it is and with offsets; None where no image shows it."""


class Trained(NamedTuple):
    """What a checkpoint says."""

    sentences: list[str]
    curve: dict[str, float]
    """Metrics under adjusted logits or other thresholds, as the test prints them."""
    offsets: Offsets | None
    """None of a head of one channel, whose threshold does the same."""


class KeptPixels(BaseMetric):
    """Logits and labels of a grid of pixels of each image."""

    default_prefix = 'kept'

    def __init__(self, images: int, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.budget = KEPT_VALUES / num_classes / max(images, 1)
        self.ignore_index = ignore_index
        self.images: list[Pixels] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            logits, label = sample['seg_logits']['data'], sample['gt_sem_seg']['data'][0]
            every = max(GRID, math.ceil(math.sqrt(label.numel() / self.budget)))
            self.results.append(pixels_of(logits, label, self.ignore_index, every))

    def compute_metrics(self, results: list) -> dict:
        self.images = results
        return {}


class _Watch(Hook):
    """A bar, and no test of weights that the checkpoint does not have."""

    def __init__(self, description: str) -> None:
        self.description = description

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        given = checkpoint.get('state_dict', checkpoint)
        given = {name.removeprefix('module.'): value for name, value in given.items()}
        wanted = dict(runner.model.named_parameters())
        missing = [
            name
            for name, value in wanted.items()
            if name not in given or given[name].shape != value.shape
        ]
        if missing:
            raise ValueError(
                f'{runner.cfg.load_from} is not of this config: {len(missing)} of '
                f'{len(wanted)} weights are not in it, or have another shape, such as {missing[0]}'
            )

    def before_test(self, runner: Runner) -> None:
        steps = range(len(runner.test_dataloader))
        self.steps = iter(track(steps, self.description, console=Console(stderr=True)))

    def before_test_iter(self, *args: Any, **kwargs: Any) -> None:
        next(self.steps)

    def after_test(self, runner: Runner) -> None:
        next(self.steps, None)


def judge_checkpoint(cfg: Config, checkpoint: str, count: ClassCount) -> Trained:
    """Test a model, as it is and with what costs no training.

    Args:
        cfg: Its config.
        checkpoint: File.
        count: Of the training set.
    """
    head = predicting_head(cfg.model)
    one_channel = argument(head, 'out_channels') == 1
    as_is = (argument(head, 'threshold') or THRESHOLD) if one_channel else 0.0
    options: dict[str, Any] = {'type': 'PerClassIoUMetric'}
    if one_channel:
        options['thresholds'] = THRESHOLDS
    elif 'logit_adjustment' not in cfg:
        # A class never seen has no prior: that of one pixel.
        options['class_counts'] = np.maximum(count.pixels, 1).tolist()
    ignored = argument(head, 'ignore_index')
    ignored = 255 if ignored is None else ignored
    test_paths, val_paths = _paths(cfg, 'test_dataloader'), _paths(cfg, 'val_dataloader')
    kept = None if one_channel else KeptPixels(len(test_paths), len(count.classes), ignored)
    metrics = _test(cfg, checkpoint, 'test_dataloader', options, kept)
    offsets = None
    if kept is not None:
        fitted = None
        if val_paths and not val_paths & test_paths:
            fitted = KeptPixels(len(val_paths), len(count.classes), ignored)
            _test(cfg, checkpoint, 'val_dataloader', {'type': 'PerClassIoUMetric'}, fitted)
        offsets = offsets_of(kept.images, None if fitted is None else fitted.images)
    prefix = 'threshold=' if one_channel else 'tau='
    curve = {f'{prefix}{as_is:g}/{name}': metrics[name] for name in METRICS}
    curve |= {name: value for name, value in metrics.items() if name.startswith(prefix)}
    accuracy = np.array([metrics.get(f'Acc/{name}', math.nan) for name in count.classes])
    if not has_learnt(accuracy):
        found = found_classes(accuracy)
        said = [f'Nothing was learnt: the model finds {found} of {len(accuracy)} classes.']
    else:
        share = 100 * count.pixels / max(count.pixels.sum(), 1)
        rule = rule_of_thumb(metrics['aAcc'], metrics['mAcc'], accuracy, share, count.classes)
        said = [f'{rule.verdict}.', *rule.sentences]
    said += [_of_curve(curve, prefix, as_is), *_of_offsets(offsets)]
    return Trained(said, curve, offsets)


def _paths(cfg: Config, loader: str) -> set[str]:
    """The images of a loader; none where it has none, or they cannot be read."""
    if not cfg.get(loader):
        return set()
    try:
        items, _ = distinct_items(build_dataset(cfg, loader))
    except (OSError, ValueError):
        return set()
    return {os.path.realpath(path) for item in items for path in item.paths.values()}


def _test(
    cfg: Config,
    checkpoint: str,
    loader: str,
    options: dict[str, Any],
    kept: KeptPixels | None,
) -> dict[str, float]:
    """Metrics of a loader's images, as if it were the test's; ``kept`` gets pixels of them."""
    cfg = cfg.copy()
    evaluator = {**as_list(cfg.test_evaluator)[0], **options}
    with tempfile.TemporaryDirectory() as folder:
        cfg.merge_from_dict(dict(load_from=checkpoint, work_dir=folder, log_level='ERROR'))
        cfg.default_scope = cfg.get('default_scope', 'mmseg')
        # mmengine keeps visualizers by name, and for good: each test needs its own, not that of a
        # folder that is gone, or of a tracking service.
        cfg.visualizer, cfg.experiment_name = None, folder
        cfg.test_evaluator = evaluator
        cfg.default_hooks = {}
        cfg.test_dataloader, cfg.test_cfg = cfg[loader], dict(type='TestLoop')
        # A runner asks for all that belongs to a training, or for nothing of it.
        for name in TRAINING:
            cfg[name] = None
        runner = Runner.from_cfg(cfg)
        runner.register_hook(_Watch(f'Testing on images of {loader}'))
        if kept is not None:
            runner.test_loop.evaluator.metrics.append(kept)
        # numpy's numbers are not of JSON
        return {name: float(value) for name, value in runner.test().items()}


def offsets_of(test: Sequence[Pixels], val: Sequence[Pixels] | None = None) -> Offsets | None:
    """Fit an offset a class, and say what it gains on images that it was not fitted on.

    Args:
        test: Of the images that are scored.
        val: Of other images, to fit on. Without them each half of ``test`` is scored with the
            offsets of the other half, and the offsets to use are those of all.

    Returns:
        None of fewer than two images.
    """
    if len(test) < 2:
        return None
    if val:
        values = _fitted(val)
        scored, held_out = [values] * len(test), 'fitted on the validation images'
    else:
        middle = len(test) // 2
        halves = test[:middle], test[middle:]
        of_first, of_second = map(_fitted, halves)
        values = _fitted(test)
        scored = [of_second] * middle + [of_first] * (len(test) - middle)
        held_out = 'each half of them with what was fitted on the other'
    before = [_areas(logits, labels) for logits, labels in test]
    after = [
        _areas(logits + values, labels)
        for (logits, labels), values in zip(test, scored, strict=True)
    ]
    found = _gain(_stacked(before), _stacked(after))
    pairs = zip(_ious(before), _ious(after), strict=True)
    return Offsets(
        values.tolist(), (found.mean, *found.interval()), len(test), held_out, list(pairs)
    )


def _fitted(images: Sequence[Pixels]) -> np.ndarray:
    num_classes = images[0][0].shape[1]
    return fit_offsets(*joined(images, FITTED_VALUES // num_classes))


def _areas(logits: np.ndarray, labels: np.ndarray) -> Areas:
    return areas_of(logits.argmax(axis=1), labels, logits.shape[1])


def _stacked(images: Sequence[Areas]) -> Areas:
    return Areas(*(np.stack(areas) for areas in zip(*images, strict=True)))


def _ious(images: Sequence[Areas]) -> list[float | None]:
    total = Areas(*(area.sum(axis=0) for area in _stacked(images)))
    values = np.where(total.label > 0, 100 * iou(total), np.nan)
    return [None if math.isnan(value) else float(value) for value in values]


def _gain(before: Areas, after: Areas) -> Estimate:
    """In mIoU over the classes that the labels have, in points, over images."""

    def mean_iou(areas: Areas) -> np.ndarray:
        known = areas.label > 0
        return 100 * np.where(known, iou(areas), 0).sum(axis=-1) / known.sum(axis=-1)

    def weighted(areas: Areas, weights: np.ndarray) -> Areas:
        return Areas(*(weights @ area for area in areas))

    images = len(before.label)
    seen, resampled = (
        mean_iou(weighted(after, weights)) - mean_iou(weighted(before, weights))
        for weights in (np.ones((1, images)), resamples(range(images)).astype(float))
    )
    return estimate(seen, resampled[:, None], images)


def _of_curve(curve: dict[str, float], prefix: str, as_is: float) -> str:
    values = [float(name[len(prefix) : -len('/mIoU')]) for name in curve if name.endswith('/mIoU')]
    what = 'a threshold' if prefix == 'threshold=' else 'logits adjusted with tau'
    if len(values) < 2:
        return 'Free, without training: these logits are adjusted already.'
    best, end = best_of_grid({v: curve[f'{prefix}{v:g}/mIoU'] for v in values}, as_is)
    if best == as_is:
        return f'Free, without training: {what} of those tested gains no mean IoU.'
    gains = [
        curve[f'{prefix}{best:g}/{name}'] - curve[f'{prefix}{as_is:g}/{name}']
        for name in ('mAcc', 'mIoU')
    ]
    option = 'model.decode_head.threshold' if prefix == 'threshold=' else 'logit_adjustment.tau'
    return (
        f'Free, without training: {what} = {best:g}, mean accuracy {gains[0]:+.1f}, mIoU '
        f'{gains[1]:+.1f} on the images that it was chosen on; tools/test.py with --cfg-options '
        f'{option}={best:g}.{end}'
    )


def _of_offsets(offsets: Offsets | None) -> list[str]:
    if offsets is None:
        return []
    gain = with_interval(*offsets.gain, sign='+')
    said = (
        f'Free, too: an offset for the logits of each class, mIoU {gain} on {offsets.images} test '
        f'images, {offsets.held_out}; the interval of 95% is over images.'
    )
    if offsets.gain[1] > 0:
        return [f'{said} tools/test.py with --cfg-options {as_options(offsets.values)}']
    return [said]


def as_options(offsets: Sequence[float]) -> str:
    """Options of ``tools/test.py`` that add offsets: those of a logit adjustment with such counts.

        z_c - log pi_c = z_c + b_c + constant    for    N_c = exp(-b_c)

    Example:
        >>> as_options([0.0, 0.5])
        'logit_adjustment.tau=1 logit_adjustment.class_counts=[100000,60653]'
    """
    counts = ','.join(str(round(PRECISION * math.exp(-value))) for value in offsets)
    return f'logit_adjustment.tau=1 logit_adjustment.class_counts=[{counts}]'
