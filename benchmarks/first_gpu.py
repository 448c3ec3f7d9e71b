"""The first ten minutes on a GPU: are the numbers right, and what do they cost.

    python benchmarks/first_gpu.py [--out benchmarks/first_gpu.json]

Writes one JSON record: the device and versions; of every loss, by each implementation, how far it
is from the CPU's value and gradient, whether a step waits for the device, and what it takes in time
and memory beside cross-entropy; the fused tail beside resizing and cross-entropy; and what
deterministic algorithms say. ``--small`` is for a try: sizes at which times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_recall.functional import resized_class_nll_sums
from mmseg_recall.functional.engines import pick_engine
from mmseg_recall.functional.engines.cuda import CUDA
from mmseg_recall.functional.engines.cuda_torch import CUDA_TORCH
from mmseg_recall.losses import ClassWeightedLoss, available_losses

IGNORE = 255
DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
Row = dict[str, Any]


def losses() -> list[tuple[str, dict[str, Any]]]:
    """Every loss by default, and those that can choose by the reference, too."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, cls in sorted(available_losses().items()):
        found.append((name, {}))
        if issubclass(cls, ClassWeightedLoss):
            found.append((name, dict(impl='plain')))
    return found


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    try:
        return available_losses()[name](**options)
    except ValueError:
        counts = [10**6 // (c + 1) for c in range(num_classes)]
        return available_losses()[name](class_counts=counts, **options)


def batch(shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits, and labels in blobs, of which four tenths are of one class and some are ignored."""
    num_images, num_classes, height, width = shape
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).to(dtype)
    blobs = torch.randint(num_classes, (num_images, height // 8, width // 8), generator=generator)
    blobs[torch.rand(blobs.shape, generator=generator) < 0.4] = 0
    target = blobs.repeat_interleave(8, 1).repeat_interleave(8, 2)
    target[:, : max(height // 10, 1)] = IGNORE
    return logits, target


def step(score: Callable[[], Tensor], logits: Tensor) -> Tensor:
    logits.grad = None
    value = score()
    value.backward()
    return value.detach()


def timed(run: Callable[[], Any], repeats: int) -> Row:
    """Median milliseconds, and the MiB that are added at the peak."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    milliseconds = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        milliseconds.append(start.elapsed_time(end))
    mib = (torch.cuda.max_memory_allocated() - before) / 2**20
    return dict(ms=statistics.median(milliseconds), peak_mib=mib)


def attempt(measure: Callable[[], Row]) -> Row:
    """What is measured, or the error: one loss that fails is no reason to lose the others."""
    try:
        return measure()
    except RuntimeError as error:
        torch.cuda.empty_cache()
        return dict(error=str(error)[:300])


def correctness(name: str, options: dict, dtype: torch.dtype, small: bool) -> Row:
    """Errors relative to the CPU's, and whether the second step waits for the device."""
    logits, target = batch((2, 5, 24, 32) if small else (2, 19, 64, 128), dtype)
    outcomes, row = [], Row()
    for device in ('cpu', 'cuda'):
        loss = build(name, logits.shape[1], **options).to(device)
        x, y = logits.detach().to(device).requires_grad_(), target.to(device)
        step(lambda loss=loss, x=x, y=y: loss(x, y, ignore_index=IGNORE), x)
        if device == 'cuda':
            row['engine'] = _engine_of(x, options)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode('error')
        try:
            value = step(lambda loss=loss, x=x, y=y: loss(x, y, ignore_index=IGNORE), x)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        outcomes.append((value.cpu().double(), x.grad.cpu().double()))
    (value, gradient), (got, got_gradient) = outcomes
    row['value_error'] = float((got - value).abs() / value.abs().clamp_min(1e-6))
    row['gradient_error'] = float((got_gradient - gradient).abs().max() / gradient.abs().max())
    rounding = max(4 * torch.finfo(dtype).eps, 2e-5)
    row['right'] = row['value_error'] <= 1e-5 and row['gradient_error'] <= rounding
    return row


def _engine_of(logits: Tensor, options: dict) -> str:
    engine = pick_engine(logits, options.get('impl', 'auto'))
    return 'triton' if engine is CUDA else 'torch' if engine is CUDA_TORCH else 'plain'


def costs(shape: tuple[int, int, int, int], dtype: torch.dtype, repeats: int) -> list[Row]:
    logits, target = (x.cuda() for x in batch(shape, dtype))
    logits.requires_grad_()
    scores: list[tuple[str, dict, Callable]] = [
        (
            'F.cross_entropy',
            {},
            lambda x, y, ignore_index: F.cross_entropy(x.float(), y, ignore_index=ignore_index),
        )
    ]
    scores += [(n, o, build(n, shape[1], **o).cuda()) for n, o in losses()]
    rows = []
    for name, options, score in scores:
        run = lambda score=score: step(lambda: score(logits, target, ignore_index=IGNORE), logits)  # noqa: E731
        row = attempt(lambda run=run: timed(run, repeats))
        rows.append(dict(loss=name, **options, **row))
    return rows


def tails(scale: int, repeats: int, small: bool) -> Row:
    height, width = (32, 32) if small else (512, 1024)
    logits = torch.randn(2, 19, height // scale, width // scale, device='cuda').requires_grad_()
    target = batch((2, 19, height, width), torch.float32)[1].cuda()

    def resized() -> Tensor:
        full = F.interpolate(logits, target.shape[1:], mode='bilinear', align_corners=False)
        return F.cross_entropy(full, target, ignore_index=IGNORE)

    fused = attempt(
        lambda: timed(
            lambda: step(lambda: resized_class_nll_sums(logits, target)[0].sum(), logits), repeats
        )
    )
    stock = attempt(lambda: timed(lambda: step(resized, logits), repeats))
    return dict(scale=scale, fused=fused, stock=stock)


def deterministic(name: str, options: dict) -> Row:
    logits, target = (x.cuda() for x in batch((2, 5, 24, 32), torch.float32))
    logits.requires_grad_()
    loss = build(name, 5, **options).cuda()
    step(lambda: loss(logits, target, ignore_index=IGNORE), logits)
    return dict(deterministic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('first_gpu.json'))
    parser.add_argument('--small', action='store_true', help='a try, whose times mean nothing')
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit('torch finds no GPU here: this is for a machine with one')
    repeats = 2 if args.small else 20
    shapes = [(1, 5, 24, 32)] if args.small else [(2, 19, 512, 1024), (4, 150, 512, 512)]
    record: Row = dict(
        device=torch.cuda.get_device_name(),
        capability=list(torch.cuda.get_device_capability()),
        torch=torch.__version__,
        cuda=torch.version.cuda,
    )
    record['correctness'] = [
        dict(
            loss=n,
            **o,
            dtype=d,
            **attempt(lambda n=n, o=o, d=d: correctness(n, o, DTYPES[d], args.small)),
        )
        for n, o in losses()
        for d in DTYPES
    ]
    record['costs'] = [
        dict(shape=list(shape), dtype=d, rows=costs(shape, DTYPES[d], repeats))
        for shape in shapes
        for d in ('float32', 'float16')
    ]
    record['tails'] = [
        tails(s, repeats, args.small) for s in ((2,) if args.small else (2, 4, 8, 16, 32))
    ]
    torch.use_deterministic_algorithms(True)
    record['deterministic'] = [
        dict(loss=n, **o, **attempt(lambda n=n, o=o: deterministic(n, o))) for n, o in losses()
    ]
    args.out.write_text(json.dumps(record, indent=1) + '\n')
    wrong = [r for r in record['correctness'] if not r.get('right')]
    for row in wrong:
        print('DIFFERS', row)
    print(f'{len(record["correctness"]) - len(wrong)} right, {len(wrong)} not; {args.out}')


if __name__ == '__main__':
    main()
