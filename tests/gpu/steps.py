"""What every loss does on a pretended device, as JSON:  python -m tests.gpu.steps {cuda,mps}"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from typing import Any

from tests.gpu.device import leave, load

KIND = sys.argv[1]
LIBRARY = load(KIND)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.registry import METRICS, MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mmseg_recall.functional.engines import cuda  # noqa: E402
from mmseg_recall.hooks.class_weight_hook import (  # noqa: E402
    class_scalars,
    focal_class_weight,
)
from mmseg_recall.losses import available_losses  # noqa: E402
from mmseg_recall.losses.base import RegionLoss  # noqa: E402
from tests.gpu.watch import Watch  # noqa: E402

NUM_CLASSES = 19
COUNTS = [10**6 // (c + 1) for c in range(NUM_CLASSES)]
# Beside the defaults of every loss.
OPTIONS: list[dict[str, Any]] = [
    dict(type='RecallLoss', smoothing=1.0, schedule=dict(until=2), normalization='weights'),
    *(dict(type='MetricWeightedLoss', metric=m) for m in ('precision', 'tversky', 'dice')),
    dict(type='InverseFrequencyLoss', mode='median', exponent=0.5),
    dict(type='ClassBalancedLoss', beta=0.999),
    dict(type='PriorRecallLoss', smoothing=1.0),
    *(dict(type='SoftmaxFocalLoss', gamma=g) for g in (0.0, 0.5, 2.0)),
    dict(type='SeesawLoss', p=0.0, q=0.0),
    *(dict(type='SoftIoULoss', average=a) for a in ('image', 'class')),
    dict(type='SoftTverskyLoss', gamma=4 / 3),
]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def cases() -> dict[str, dict]:
    configs = [dict(type=name) for name in sorted(available_losses())] + OPTIONS
    named = {}
    for config in configs:
        name = ' '.join([config['type'], *(f'{k}={v}' for k, v in config.items() if k != 'type')])
        try:
            available_losses()[config['type']]()
        except ValueError:
            config = dict(config, class_counts=COUNTS)
        named[name] = config
    return named


def batch(shape: tuple[int, ...], num_images: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_images, NUM_CLASSES, *shape, generator=generator)
    target = torch.randint(NUM_CLASSES, (num_images, *shape), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits.to(dtype), target


def step(loss: nn.Module, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    value = loss(logits, target, ignore_index=255, **options)
    value.backward()
    return value.detach()


def differences(config: dict) -> list[str]:
    """Where the device's second step has not the numbers of the CPU's."""
    found = []
    for dtype, tolerance in TOLERANCE.items():
        for shape, num_images in (((24, 32), 2), ((), 40)):
            logits, target = batch(shape, num_images, dtype)
            options = [{}]
            if not issubclass(available_losses()[config['type']], RegionLoss):
                options.append(dict(weight=torch.rand(target.shape)))
            for given in options:
                outcomes = []
                for device in ('cpu', KIND):
                    loss = MODELS.build(config).to(device)
                    x, y = logits.detach().to(device), target.to(device)
                    moved = {k: v.to(device) for k, v in given.items()}
                    for _ in range(2):
                        x = x.detach().requires_grad_()
                        value = step(loss, x, y, **moved)
                    outcomes.append((value.cpu(), x.grad.cpu()))
                (value, gradient), (got, got_gradient) = outcomes
                error = (gradient.double() - got_gradient.double()).abs().max()
                error = error / gradient.double().abs().max()
                if not torch.allclose(value, got, rtol=1e-5) or not error <= tolerance:
                    found.append(f'{dtype} {shape} {list(given)}: {got} not {value}, {error:.1e}')
    return found


def costs(loss: Any, shape: tuple[int, int] = (64, 128)) -> dict[str, float]:
    """Of a step: launches, and what is read, written and allocated, in float32 logits."""
    row: dict[str, float] = {}
    for dtype, suffix in ((torch.float32, ''), (torch.float16, '_fp16')):
        logits, target = batch(shape, 2, dtype)
        size = 4 * logits.numel()
        logits, target = logits.to(KIND).requires_grad_(), target.to(KIND)
        step(loss, logits, target)
        logits.grad = None
        gc.collect()
        before = LIBRARY.sim_live()
        LIBRARY.sim_reset()
        value = loss(logits, target, ignore_index=255)
        row[f'held{suffix}'] = round((LIBRARY.sim_live() - before) / size, 2)
        value.backward()
        row[f'peak{suffix}'] = round((LIBRARY.sim_peak() - before) / size, 2)
        logits.grad = value = None
    logits = logits.detach().float().requires_grad_()
    step(loss, logits, target)
    logits.grad = None
    with Watch() as watch:
        step(loss, logits, target)
    row |= dict(launches=watch.launches, passes=round(watch.bytes / size, 2))
    WAITS.extend(watch.waits)
    MIXED.extend(watch.mixed)
    return row


def around_triton(losses: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Costs by default on a GPU, where Triton can be built, without those of its kernels."""

    class NoKernels:
        def __getattr__(self, name: str) -> NoKernels:
            return self

        def __getitem__(self, grid: tuple[int]) -> Any:
            return lambda *_, **__: None

    cuda._kernels, cuda.usable = NoKernels, cuda.supported
    cuda.check_in_a_later_step = lambda *_: None
    by_default = {name: costs(losses[name]) for name in sorted(available_losses())}
    return {f'{name}, around the Triton kernels': row for name, row in by_default.items()}


def head_step() -> None:
    """Of a decode head with the fused tail; nothing of ours or of mmseg's waits there."""
    head = MODELS.build(
        dict(
            type='FusedFCNHead', in_channels=4, channels=4, num_convs=1, num_classes=NUM_CLASSES,
            norm_cfg=dict(type='BN'), loss_decode=[dict(type='RecallLoss'),
            dict(type='InverseFrequencyLoss', class_counts=COUNTS)],
        )
    ).to(KIND)  # fmt: skip
    target = batch((32, 32), 2, torch.float32)[1].to(KIND)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=y.unsqueeze(0))) for y in target]
    logits = torch.randn(2, NUM_CLASSES, 8, 8).to(KIND).requires_grad_()
    with Watch() as watch:
        losses = head.loss_by_feat(logits, samples)
        (losses['loss_recall'] + losses['loss_inverse_frequency']).backward()
    WAITS.extend(watch.waits)
    MIXED.extend(watch.mixed)
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def evaluation() -> None:
    """The adjusted segmentor predicts, the metric counts, the hook's numbers are made."""
    model = MODELS.build(
        dict(
            type='LogitAdjustedEncoderDecoder', class_counts=COUNTS,
            backbone=dict(type='ResNetV1c', depth=18, base_channels=2, stem_channels=2),
            decode_head=dict(
                type='FCNHead', in_channels=16, in_index=3, channels=4, num_convs=1,
                num_classes=NUM_CLASSES, loss_decode=dict(type='CrossEntropyLoss'),
            ),
            test_cfg=ConfigDict(mode='whole'),
        )
    ).to(KIND).eval()  # fmt: skip
    target = batch((32, 32), 1, torch.float32)[1].to(KIND)
    with torch.no_grad(), Watch() as watch:
        [sample] = model.predict(torch.randn(1, 3, 32, 32).to(KIND))
        sample.gt_sem_seg = PixelData(data=target)
        metric = METRICS.build(dict(type='PerClassIoUMetric', class_counts=COUNTS))
        metric.dataset_meta = dict(classes=[str(c) for c in range(NUM_CLASSES)])
        metric.process({}, [sample.to_dict()])
        metric.evaluate(1)
        logits, target = (x.to(KIND) for x in batch((8, 8), 2, torch.float32))
        for name in ('SoftmaxFocalLoss', 'RecallLoss'):
            loss = MODELS.build(dict(type=name)).to(KIND)
            loss(logits, target)
            numbers = (
                (loss.last_weight, loss.last_counts)
                if name == 'RecallLoss'
                else focal_class_weight(loss, logits, target)
            )
            class_scalars('head', metric.dataset_meta['classes'], *numbers)
    MIXED.extend(watch.mixed)


WAITS: list[str] = []
MIXED: list[str] = []
if __name__ == '__main__':
    warnings.simplefilter('ignore')
    named = cases()
    differs = {name: differences(config) for name, config in named.items()}
    losses = {name: MODELS.build(config).to(KIND) for name, config in named.items()}
    table = {name: costs(loss) for name, loss in losses.items()}
    # Of more pixels than it sorts.
    table['LovaszSoftmaxLoss of 256x512'] = costs(losses['LovaszSoftmaxLoss'], (256, 512))
    table['F.cross_entropy'] = costs(F.cross_entropy)
    head_step()
    evaluation()
    if KIND == 'cuda':
        table |= around_triton(losses)
    found = {name: rows for name, rows in differs.items() if rows}
    print(json.dumps(dict(differs=found, waits=WAITS, mixed=MIXED, table=table)))
    leave()
