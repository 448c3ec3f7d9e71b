"""Train decode heads on features of a frozen backbone: the same comparison in minutes.

A head is trained with the config's loss, optimiser and schedule on features that are computed once
(:mod:`mmseg_recall.comparison.features`), and leaves the record of any other run; its ``setup``
says that the backbone was frozen.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import set_random_seed
from mmseg.models.utils import resize
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.utils import register_all_modules
from rich.console import Console
from torch import Tensor, nn

from ..config import argument, as_list, predicting_head, segmentor
from ..evaluation.areas import areas_of, iou
from ..evaluation.boundary import boundary_areas
from ..evaluation.calibration import class_calibration_error
from ..evaluation.objects import found_objects
from ..evaluation.operating_point import average_precision, fit_offsets, joined, pixels_of
from ..files import write_atomically
from ..literal_config import parse_config
from ..models.rewrite import rewrite
from ..out_folder import claim, write_manifest
from .benchmark import is_complete, summary
from .features import Item, load_features
from .first_found import CHECKS, first_found, hits
from .plan import Plan, areas_metric
from .record import complete_record, failed_record, failure_of, write_record
from .trial import one_of_each_loss

FEATURES = 'features'
# By which operating points are compared.
MAX_PIXELS = 300_000
# Means over the classes, by the name that they have among the metrics.
MEANS = {
    'mAP': 'average_precision',
    'mIoU_as_is': 'IoU',
    'mIoU_with_offsets': 'IoU_with_offsets',
    'mBoundaryIoU': 'boundary_IoU',
    'mObjectRecall': 'object_recall',
    'mCalibrationError': 'calibration_error',
}


def run_frozen(plans: Sequence[Plan], out: Path) -> dict[str, str]:
    """Train and test the head of every plan on frozen features, one after the other.

    A run with a complete record is skipped; one that diverges is recorded as failed, and the others
    go on.

    Args:
        plans: Of :func:`mmseg_recall.comparison.plan_runs`, with ``frozen`` views.
        out: Folder of the comparison; the features are kept in ``features`` beside it, which
            comparisons share.

    Raises:
        FileExistsError: ``out`` has something in it that no comparison has made.
        ValueError: A config cannot be trained on frozen features; ``out`` holds a run of the same
            name with another config; a file of features is damaged, or of another config.
    """
    # The stack says how each layer of a head starts, prints a metric's table, comments on configs.
    MMLogger.get_instance('frozen').setLevel('ERROR')
    warnings.filterwarnings('ignore', category=UserWarning, module=r'mmseg\.')
    manifest = claim(out, 'benchmark')
    pending = [plan for plan in plans if not is_complete(plan, out)]
    configs = {plan.name: parse_config(plan.config, plan.config_file) for plan in pending}
    register_all_modules(init_default_scope=False)
    _refuse_what_cannot_start(pending, configs)
    write_manifest(out, manifest)
    show = Console().print
    show(f'{len(plans) - len(pending)} of {len(plans)} runs are complete')
    failures = {}
    for plan in pending:
        write_atomically(out / f'{plan.name}.py', plan.config.encode())
        record = _run(plan, configs[plan.name], out)
        write_record(out / f'{plan.name}.json', record)
        if record['status'] == 'failed':
            failures[plan.name] = failure_of(record)
            show(f'failed  {plan.name}: {failures[plan.name]}', markup=False)
        else:
            show(f'done    {plan.name}: {summary(record["metrics"])}', markup=False)
    return failures


def _refuse_what_cannot_start(plans: list[Plan], configs: dict[str, Config]) -> None:
    for plan in plans:
        _refuse_what_needs_images(plan, configs[plan.name])
    for plan in one_of_each_loss(plans, configs):
        try:
            build_heads(configs[plan.name])
        except Exception as error:  # whatever a user's own module raises
            raise ValueError(
                f'{plan.name} cannot be built, and nothing was started: {error}'
            ) from error


def _refuse_what_needs_images(plan: Plan, cfg: Config) -> None:
    path = plan.config_file
    if plan.checkpoint != 'last':
        raise ValueError(
            f"{path}: heads on frozen features keep no checkpoints: the rule must be 'last', not "
            f'{plan.checkpoint!r}'
        )
    model = segmentor(cfg.model)
    mode = (model.get('test_cfg') or {}).get('mode', 'whole')
    if mode != 'whole':
        raise ValueError(
            f"{path}: model.test_cfg.mode is '{mode}', and features are of whole images: frozen "
            "features need 'whole'"
        )
    if 'max_iters' not in (cfg.get('train_cfg') or {}):
        raise ValueError(
            f'{path}: frozen features need train_cfg.max_iters, a number of iterations'
        )
    if argument(predicting_head(cfg.model), 'out_channels') == 1:
        raise ValueError(f'{path}: frozen features need a head with a channel for each class')
    if cfg.get('load_from'):
        raise ValueError(
            f'{path}: load_from has no effect on frozen features, whose backbone is loaded by '
            'model.backbone.init_cfg: set load_from=None'
        )


def _run(plan: Plan, cfg: Config, out: Path) -> dict[str, Any]:
    features = out.parent / FEATURES
    model = build_heads(cfg)
    iterations = cfg.train_cfg.max_iters
    items = load_features(cfg, 'train', features)
    start = time.perf_counter()  # the features cost the first run only
    found = train(model, cfg, items)
    if found is None:
        return failed_record(plan, 'training', None, 'diverged, the loss is not finite')
    seconds = (time.perf_counter() - start) / iterations
    metrics, per_class = test(model, cfg, features, out / plan.name / 'areas.npz')
    record = complete_record(plan, out / plan.name, f'iter_{iterations}.pth', metrics, None)
    if found:
        per_class |= {'first_found': found}
    return {**record, 'seconds_per_iteration': seconds, 'per_class': per_class}


def build_heads(cfg: Config) -> Any:
    """The segmentor of a config, with its losses swapped, for features in the place of images."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    set_random_seed(cfg.randomness.seed)
    model = MODELS.build(segmentor(rewrite(cfg).model))
    model.backbone, model.neck = nn.Identity(), None
    model.init_weights()
    return model


def train(model: Any, cfg: Config, items: list[Item]) -> list[float] | None:
    """Train the heads by the config's optimiser and schedule.

    Returns:
        The iteration by which each class is :func:`first_found`, [] of a head that does not predict
        by ``conv_seg``; None if the loss is not finite.
    """
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=optimizer))
        for one in as_list(cfg.get('param_scheduler'))
    ]
    batches = _batches(len(items), cfg.train_dataloader.batch_size, cfg.randomness.seed)
    model.train()
    iterations, ignore_index = cfg.train_cfg.max_iters, _ignore_index(cfg)
    counts = torch.zeros(CHECKS, 2, model.out_channels, dtype=torch.int64)
    logits: dict[str, Tensor] = {}
    heads = model.decode_head
    predicting = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    conv_seg = getattr(predicting, 'conv_seg', None) or nn.Identity()
    hook = conv_seg.register_forward_hook(lambda _, __, output: logits.update(batch=output))
    loss = torch.zeros(())
    for iteration in range(iterations):
        batch = [items[index] for index in next(batches)]
        losses = model.loss(_stack(batch), [item.sample() for item in batch])
        if logits:
            labels = torch.stack([item.label for item in batch])
            tenth = iteration * CHECKS // iterations
            counts[tenth] += hits(logits.pop('batch'), labels, ignore_index)
        loss, _ = model.parse_losses(losses)
        optimizer.update_params(loss)
        for scheduler in schedulers:
            scheduler.step()
    hook.remove()
    if not math.isfinite(loss.item()):
        return None
    return first_found(counts, iterations) if counts.any() else []


def _batches(length: int, size: int, seed: int) -> Iterator[list[int]]:
    """Each item once before any comes again; a batch may span two rounds."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += torch.randperm(length, generator=generator).tolist()
        yield order[:size]
        del order[:size]


def _stack(batch: list[Item]) -> list[Tensor]:
    levels = zip(*(item.features for item in batch), strict=True)
    return [torch.stack(level).float() for level in levels]


@torch.no_grad()
def logits_of(model: Any, item: Item) -> Tensor:
    """Logits (C, H, W) of an item at the size of its label."""
    logits = model.encode_decode(_stack([item]), [item.sizes])
    left, right, top, bottom = item.sizes.get('img_padding_size', (0, 0, 0, 0))
    height, width = logits.shape[2:]
    logits = logits[:, :, top : height - bottom, left : width - right]
    size = item.label.shape[1:]
    return resize(logits, size, mode='bilinear', align_corners=model.align_corners)[0]


def test(
    model: Any, cfg: Config, features: Path, areas_file: Path
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Metrics of the test images, and what they do not say, of each class, in per cent.

    ``boundary_IoU``, ``object_recall`` and the number of ``objects`` over all images, the
    ``calibration_error`` and, where there are validation images, the :func:`operating_point`.
    """
    model.eval()
    metric = METRICS.build(dict(areas_metric(cfg), areas_file=str(areas_file)))
    metric.dataset_meta = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True)).metainfo
    items, ignore_index = load_features(cfg, 'test', features), _ignore_index(cfg)
    kept, outlines = [], []
    for item in items:
        logits, label = logits_of(model, item), item.label.long()
        # Not by argmax, which takes five times as long over the first dimension.
        prediction = logits.max(dim=0, keepdim=True).indices
        sample = dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=label))
        metric.process({}, [sample])
        kept.append(pixels_of(logits, label[0], ignore_index))
        maps = prediction[0].numpy(), label[0].numpy(), len(logits), ignore_index
        outlines.append([*boundary_areas(*maps), *found_objects(*maps)])
    metrics = {name: float(value) for name, value in metric.evaluate(len(items)).items()}
    scored = joined(kept, MAX_PIXELS)
    errors = class_calibration_error(_softmax(scored[0]), scored[1])
    per_class = {
        'calibration_error': (100 * errors).tolist(),
        **_outlines(np.sum(outlines, axis=0)),
    }
    if cfg.get('val_dataloader'):
        chosen_on = [
            pixels_of(logits_of(model, item), item.label[0], ignore_index)
            for item in load_features(cfg, 'val', features)
        ]
        per_class |= operating_point(joined(chosen_on, MAX_PIXELS), scored)
    means = {
        name: float(np.nanmean(per_class[key])) for name, key in MEANS.items() if key in per_class
    }
    return {**metrics, **means}, per_class


def _ignore_index(cfg: Config) -> int:
    return argument(predicting_head(cfg.model), 'ignore_index')


def _softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def _outlines(sums: np.ndarray) -> dict[str, list[float]]:
    """Of boundaries that meet, those of either, objects found and all, (4, C)."""
    meet, either, found, objects = sums.astype(float)
    with np.errstate(invalid='ignore', divide='ignore'):
        boundary = np.where(objects > 0, 100 * meet / either, np.nan)
        recall = 100 * found / objects
    return {
        'boundary_IoU': boundary.tolist(),
        'object_recall': recall.tolist(),
        'objects': objects.tolist(),
    }


def operating_point(
    val: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, list[float]]:
    """What part of a result is where the line between the classes is drawn, in per cent.

    Args:
        val: Logits (n, C) and labels (n,) of validation pixels, to fit the offsets on.
        test: Those that are scored.

    Returns:
        Of each class: ``average_precision`` of its probability, ``IoU``, ``offsets`` of the logits
        and ``IoU_with_offsets``. NaN for a class without a pixel.
    """
    logits, labels = test
    offsets = fit_offsets(*val)
    return {
        'average_precision': (100 * average_precision(_softmax(logits), labels)).tolist(),
        'IoU': (100 * _iou(logits, labels)).tolist(),
        'offsets': offsets.tolist(),
        'IoU_with_offsets': (100 * _iou(logits + offsets, labels)).tolist(),
    }


def _iou(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return iou(areas_of(logits.argmax(axis=1), labels, logits.shape[1]))
