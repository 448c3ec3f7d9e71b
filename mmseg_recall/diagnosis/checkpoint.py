"""What a trained model says on the test images: the rule of thumb, and what costs no training."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
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
from ..evaluation.areas import accuracy as accuracy_of
from ..evaluation.areas import areas_of, iou
from ..evaluation.groups import group_images
from ..evaluation.operating_point import GRID, Pixels, fit_offsets, joined, pixels_of
from ..functional import log_prior
from ..statistics import estimate, resamples, with_interval
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


Gain = tuple[float, float, float]
"""In points, and both ends of its interval of 95%."""


class Free(NamedTuple):
    """Something added to the logits after training, and what it gains on images held out."""

    values: list[float]
    """For each class; 0 of one that no pixel shows."""
    gains: dict[str, Gain]
    """In mIoU and mAcc."""
    iou: list[tuple[float | None, float | None]]
    """Of each class, per cent, as it is and with the values; None where no image shows it."""


class Trained(NamedTuple):
    """What a checkpoint says."""

    sentences: list[str]
    curve: dict[str, float]
    """Metrics under adjusted logits or other thresholds, as the test prints them."""
    offsets: Free | None
    """None of a head of one channel, whose threshold does the same."""


class KeptPixels(BaseMetric):
    """Logits and labels of a grid of pixels of each image, and its name."""

    default_prefix = 'kept'

    def __init__(self, images: int, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.budget = KEPT_VALUES / num_classes / max(images, 1)
        self.ignore_index = ignore_index
        self.images: list[Pixels] = []
        self.names: list[str] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            logits, label = sample['seg_logits']['data'], sample['gt_sem_seg']['data'][0]
            if len(logits) == 1:
                # The probability of the second class of two, whose logits are (0, z).
                logits = torch.cat([torch.zeros_like(logits), logits.double().logit(eps=1e-12)])
            every = max(GRID, math.ceil(math.sqrt(label.numel() / self.budget)))
            pixels = pixels_of(logits, label, self.ignore_index, every)
            self.results.append((Path(sample.get('img_path') or '').stem, pixels))

    def compute_metrics(self, results: list) -> dict:
        self.names, self.images = map(list, zip(*results, strict=True))
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


def judge_checkpoint(
    cfg: Config, checkpoint: str, count: ClassCount, groups: str | None = None
) -> Trained:
    """Test a model, as it is and with what costs no training.

    Args:
        cfg: Its config.
        checkpoint: File.
        count: Of the training set.
        groups: Which images belong together, as
            :func:`mmseg_recall.evaluation.groups.group_images` takes it; None if none do.
    """
    head = predicting_head(cfg.model)
    one_channel = argument(head, 'out_channels') == 1
    as_is = (argument(head, 'threshold') or THRESHOLD) if one_channel else 0.0
    options: dict[str, Any] = {'type': 'PerClassIoUMetric'}
    # A class never seen has no prior: that of one pixel.
    counts = np.maximum(count.pixels, 1).tolist()
    if one_channel:
        options['thresholds'] = THRESHOLDS
    elif 'logit_adjustment' not in cfg:
        options['class_counts'] = counts
    ignored = argument(head, 'ignore_index')
    ignored = 255 if ignored is None else ignored
    test_paths, val_paths = _paths(cfg, 'test_dataloader'), _paths(cfg, 'val_dataloader')
    kept = KeptPixels(len(test_paths), len(count.classes), ignored)
    metrics = _test(cfg, checkpoint, 'test_dataloader', options, kept)
    chosen_on = None
    if val_paths and not val_paths & test_paths:
        others = KeptPixels(len(val_paths), len(count.classes), ignored)
        _test(cfg, checkpoint, 'val_dataloader', {'type': 'PerClassIoUMetric'}, others)
        chosen_on = others.images
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
    tested = [float(name[len(prefix) : -len('/mIoU')]) for name in curve if name.endswith('/mIoU')]
    if one_channel:
        added = {value: np.array([0, -math.log(value / (1 - value))]) for value in tested}
    else:
        added = {tau: -log_prior(torch.tensor(counts), tau).numpy() for tau in tested}
    of_image = None
    if groups is not None:
        named, without = group_images(groups, kept.names)
        said += without
        of_image = [named.get(name, name) for name in kept.names]
    if len(kept.images) < 2:
        return Trained([*said, 'What is free cannot be scored on a single image.'], curve, None)
    held_out = HeldOut(kept.images, chosen_on, of_image)
    said.append(_of_curve(held_out, added, as_is, prefix))
    if one_channel:
        return Trained(said, curve, None)
    offsets = free_gain(held_out, _fitted)
    return Trained([*said, _of_offsets(held_out, offsets)], curve, offsets)


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
    kept: KeptPixels,
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
        runner.test_loop.evaluator.metrics.append(kept)
        # numpy's numbers are not of JSON
        return {name: float(value) for name, value in runner.test().items()}


class HeldOut(NamedTuple):
    """Images to score something on, and others to choose it by."""

    test: Sequence[Pixels]
    val: Sequence[Pixels] | None = None
    """Without them each half of ``test`` is scored with what is chosen by the other half."""
    groups: Sequence[object] | None = None
    """Of the test images; each of its own where none are given."""

    def words(self) -> str:
        """Which images these are."""
        chosen = 'each half by the other' if self.val is None else 'by the validation images'
        if self.groups is None:
            return f'on {len(self.test)} test images, chosen {chosen}'
        number = len(set(self.groups))
        return f'on {len(self.test)} test images in {number} groups, chosen {chosen}'


def free_gain(
    held_out: HeldOut,
    choose: Callable[[Sequence[Pixels]], np.ndarray],
    as_is: np.ndarray | float = 0.0,
) -> Free:
    """Choose what is added to the logits, and say what it gains on images that had no say in it.

    Args:
        held_out: The images.
        choose: From pixels to what is added to the logits, (C,).
        as_is: What is added today.
    """
    test = held_out.test
    if held_out.val is not None:
        values = choose(held_out.val)
        scored = [values] * len(test)
    else:
        middle = len(test) // 2
        halves = test[:middle], test[middle:]
        of_first, of_second = map(choose, halves)
        values = choose(test)
        scored = [of_second] * middle + [of_first] * (len(test) - middle)
    before = [_areas(logits + as_is, labels) for logits, labels in test]
    after = [
        _areas(logits + values, labels)
        for (logits, labels), values in zip(test, scored, strict=True)
    ]
    pairs = zip(_ious(before), _ious(after), strict=True)
    groups = range(len(test)) if held_out.groups is None else held_out.groups
    return Free(values.tolist(), _gains(_stacked(before), _stacked(after), groups), list(pairs))


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


def _mean(of_class: Callable[[Areas], np.ndarray], areas: Areas) -> np.ndarray:
    """Per cent, over the classes that the labels have."""
    known = areas.label > 0
    return 100 * np.where(known, of_class(areas), 0).sum(axis=-1) / known.sum(axis=-1)


def _gains(before: Areas, after: Areas, groups: Sequence[object]) -> dict[str, Gain]:
    drawn = resamples(groups).astype(float)
    gains = {}
    for name, of_class in (('mIoU', iou), ('mAcc', accuracy_of)):
        seen, resampled = (
            np.subtract(
                *(
                    _mean(of_class, Areas(*(weights @ area for area in areas)))
                    for areas in (after, before)
                )
            )
            for weights in (np.ones((1, len(groups))), drawn)
        )
        found = estimate(seen, resampled[:, None], len(set(groups)))
        gains[name] = (found.mean, *found.interval())
    return gains


def _of_curve(held_out: HeldOut, added: dict[float, np.ndarray], as_is: float, prefix: str) -> str:
    what = 'a threshold' if prefix == 'threshold=' else 'logits adjusted with tau'
    if len(added) < 2:
        return 'Free, without training: these logits are adjusted already.'

    def best_of(images: Sequence[Pixels]) -> tuple[float, str]:
        total = {
            value: Areas(*np.sum([_areas(x + shift, ids) for x, ids in images], axis=0))
            for value, shift in added.items()
        }
        return best_of_grid({v: float(_mean(iou, areas)) for v, areas in total.items()}, as_is)

    best, end = best_of(held_out.test if held_out.val is None else held_out.val)
    if best == as_is:
        return f'Free, without training: {what} of those tested gains no mean IoU.'
    found = free_gain(held_out, lambda images: added[best_of(images)[0]], added[as_is])
    option = 'model.decode_head.threshold' if prefix == 'threshold=' else 'logit_adjustment.tau'
    return (
        f'Free, without training: {what} = {best:g}, {_gain_text(found)} {held_out.words()}; '
        f'tools/test.py with --cfg-options {option}={best:g}.{end}'
    )


def _gain_text(found: Free) -> str:
    texts = {name: with_interval(*gain, sign='+') for name, gain in found.gains.items()}
    return f'mIoU {texts["mIoU"]}, mean accuracy {texts["mAcc"]}'


def _of_offsets(held_out: HeldOut, offsets: Free) -> str:
    over = 'images' if held_out.groups is None else 'groups'
    said = (
        f'Free, too: an offset for the logits of each class, {_gain_text(offsets)} '
        f'{held_out.words()}; intervals of 95% are over {over}.'
    )
    if offsets.gains['mIoU'][1] > 0:
        return f'{said} tools/test.py with --cfg-options {as_options(offsets.values)}'
    return said


def as_options(offsets: Sequence[float]) -> str:
    """Options of ``tools/test.py`` that add offsets: those of a logit adjustment with such counts.

        z_c - log pi_c = z_c + b_c + constant    for    N_c = exp(-b_c)

    Example:
        >>> as_options([0.0, 0.5])
        'logit_adjustment.tau=1 logit_adjustment.class_counts=[100000,60653]'
    """
    counts = ','.join(str(round(PRECISION * math.exp(-value))) for value in offsets)
    return f'logit_adjustment.tau=1 logit_adjustment.class_counts=[{counts}]'
