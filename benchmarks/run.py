"""Time and memory of every loss, of the decode head's tail, and of a whole training step.

    python benchmarks/run.py                    # everything; results.csv and a Markdown table
    python benchmarks/run.py --only 'tail'      # what matches in "group shape"
    python benchmarks/run.py --rounds 3

Every row of a group is run once a round, in turn, so that whatever else the machine does falls on
all alike; a ratio is taken within a round, and what is printed is its median and quartiles. Peak
memory is what a forward and backward adds to the resident memory of the process (on CUDA: to the
allocated memory), page cache and huge pages included, measured in a round of its own.

The losses are those that ``mmseg_recall.losses.available_losses()`` finds.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import inspect
import multiprocessing
import platform
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.losses import CrossEntropyLoss, FocalLoss, LovaszLoss, OhemCrossEntropy
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from rich.progress import track
from torch import Tensor

import mmseg_recall  # noqa: F401  (registers the losses)
from mmseg_recall.losses import available_losses

ROOT = Path(__file__).resolve().parents[1]
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
IGNORE = 255
SHAPES = {
    'SYNTHIA 6x13x384x768': (6, 13, 384, 768),
    'Cityscapes 2x19x769x769': (2, 19, 769, 769),
    'Cityscapes 2x19x512x1024': (2, 19, 512, 1024),
    'ADE20K 4x150x512x512': (4, 150, 512, 512),
}
# A row stops taking part when it has used this much time, in seconds: some take many seconds a run.
BUDGET = 8.0
CE, STOCK_TAIL, STOCK_STEP = 'F.cross_entropy', 'stock, CrossEntropyLoss', 'CE, stock'
COMPILED_CE = 'F.cross_entropy, torch.compile'
# What the losses cannot be faster than: reading the logits twice and writing them once.
BYTES = 'three times the bytes of the logits'
# 'auto' is the fused path on CPU alone.
RECALL = 'RecallLoss' if DEVICE.type == 'cpu' else 'RecallLoss, fused'


@dataclass
class Row:
    """Something to measure: ``forward`` returns the loss, which is then run backward."""

    name: str
    forward: Callable[[], Tensor]
    leaves: list[Tensor]
    seconds: dict[str, list[float | None]] = field(
        default_factory=lambda: {'forward': [], 'forward+backward': []}
    )
    peak: int = 0
    python_calls: int = 0

    def run(self) -> tuple[float, float]:
        """Seconds of the forward alone, and of both."""
        for leaf in self.leaves:
            leaf.grad = None
        start = now()
        loss = self.forward()
        middle = now()
        loss.backward()
        return middle - start, now() - start

    def measure_peak(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        before = reset_peak()
        self.forward().backward()
        self.peak = peak() - before

    def count_python_calls(self) -> None:
        """The functions written in Python that a step enters: its cost where little is computed."""
        entered = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal entered
            entered += event == 'call'

        sys.setprofile(count)
        try:
            self.forward().backward()
        finally:
            sys.setprofile(None)
        self.python_calls = entered


def now() -> float:
    if DEVICE.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak() -> int:
    """Start a new peak; return the bytes in use."""
    gc.collect()
    if DEVICE.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what free() kept must not serve the next run
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE.type == 'cuda' else _status('VmHWM')


def _status(key: str) -> int:
    text = Path('/proc/self/status').read_text()
    return int(re.search(rf'{key}:\s+(\d+) kB', text)[1]) * 1024


def measure(rows: list[Row], rounds: int, label: str) -> None:
    """Fill in the rows, interleaved; the run for the peak warms up as well."""
    for row in rows:
        if 'compile' in row.name:
            row.run()  # compiling takes memory of its own
        row.measure_peak()
        row.count_python_calls()
    spent = dict.fromkeys((row.name for row in rows), 0.0)
    for _ in track(range(rounds), description=label):
        for row in rows:
            run: tuple[float | None, float | None] = (None, None)
            if spent[row.name] < BUDGET:
                run = row.run()
                spent[row.name] += run[1]
            for values, seconds in zip(row.seconds.values(), run, strict=True):
                values.append(seconds)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, middle, high


# ------------------------------------------------------------------------------------- what to run


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits as a head gives them early on, and labels of which a tenth is void."""
    generator = torch.Generator().manual_seed(0)
    num_images, num_classes, *size = shape
    logits = torch.empty(shape).normal_(0, 3, generator=generator).to(DEVICE).requires_grad_()
    target = torch.randint(num_classes, (num_images, *size), generator=generator)
    target[:, : size[0] // 10] = IGNORE
    return logits, target.to(DEVICE)


def our_losses(num_classes: int) -> dict[str, torch.nn.Module]:
    losses = {}
    for name, cls in sorted(available_losses().items()):
        takes_counts = 'class_counts' in inspect.signature(cls).parameters
        options = dict(class_counts=list(range(1, num_classes + 1))) if takes_counts else {}
        losses[name] = cls(**options).to(DEVICE)
    return losses


def loss_rows(shape: tuple[int, ...]) -> list[Row]:
    logits, target = batch(shape)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # CrossEntropyLoss advises on avg_non_ignore
        stock = {
            'mmseg CrossEntropyLoss': CrossEntropyLoss(avg_non_ignore=True),
            'mmseg FocalLoss (sigmoid)': FocalLoss(),
            'mmseg OhemCrossEntropy': OhemCrossEntropy(ignore_label=IGNORE),
            'mmseg LovaszLoss': LovaszLoss(per_image=False, reduction='none'),
        }
    plain = MODELS.build(dict(type='RecallLoss', impl='plain')).to(DEVICE)
    ours = our_losses(shape[1])
    if DEVICE.type == 'cuda':
        ours[RECALL] = MODELS.build(dict(type='RecallLoss', impl='fused')).to(DEVICE)
    ours['RecallLoss, plain'] = plain
    ours['RecallLoss, plain, torch.compile'] = torch.compile(plain)
    torch.compiler.reset()  # each shape compiled for itself
    compiled = torch.compile(F.cross_entropy)
    calls: dict[str, Callable[[], Tensor]] = {
        CE: lambda: F.cross_entropy(logits, target, ignore_index=IGNORE),
        COMPILED_CE: lambda: compiled(logits, target, ignore_index=IGNORE),
    }
    # On CPU mmseg's focal loss takes labels only one-hot.
    index = target.where(target != IGNORE, 0).unsqueeze(1)
    one_hot = torch.zeros(shape, device=DEVICE).scatter_(1, index, 1.0)
    for name, loss in (stock | ours).items():
        if isinstance(loss, OhemCrossEntropy):
            calls[name] = lambda loss=loss: loss(logits, target)
        elif isinstance(loss, FocalLoss):
            calls[name] = lambda loss=loss: loss(logits, one_hot)
        else:
            calls[name] = lambda loss=loss: loss(logits, target, ignore_index=IGNORE)
    rows = [Row(name, call, [logits]) for name, call in calls.items()]
    return [*rows, bytes_row(logits)] if DEVICE.type == 'cuda' else rows


def bytes_row(logits: Tensor) -> Row:
    """A copy that reads and writes what the loss must, all of it in the forward."""
    source, copy = torch.zeros(2, 3 * logits.numel() // 2, device=DEVICE)
    nothing = torch.zeros((), device=DEVICE, requires_grad=True)

    def move() -> Tensor:
        copy.copy_(source)
        return nothing.clone()

    return Row(BYTES, move, [nothing])


def tail_rows(shape: tuple[int, ...]) -> list[Row]:
    """``loss_by_feat`` of a stock head and of the fused one, logits at stride 8."""
    _, target = batch(shape)
    low = [(s + 7) // 8 for s in shape[2:]]
    logits, _ = batch((*shape[:2], *low))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=t.unsqueeze(0))) for t in target]
    weights = dict(
        type='InverseFrequencyLoss', exponent=0.5, class_counts=list(range(1, shape[1] + 1))
    )
    losses = {
        'CrossEntropyLoss': dict(type='CrossEntropyLoss', avg_non_ignore=True),
        'RecallLoss': dict(type='RecallLoss'),
        'recommended': [weights, dict(type='LovaszSoftmaxLoss')],
    }
    rows = []
    for head, tail in (('FCNHead', 'stock'), ('FusedFCNHead', 'fused')):
        for name, loss in losses.items():
            module = MODELS.build(
                dict(
                    type=head,
                    in_channels=4,
                    channels=4,
                    num_classes=shape[1],
                    loss_decode=loss,
                )
            ).to(DEVICE)

            def forward(module: torch.nn.Module = module) -> Tensor:
                losses = module.loss_by_feat(logits, samples)
                return sum(v for k, v in losses.items() if k.startswith('loss'))

            rows.append(Row(f'{tail}, {name}', forward, [logits]))
    return rows


def step_rows() -> list[Row]:
    """A training step of DeepLabV3-R18 on two SYNTHIA images, 384x768, without the data loader."""
    cfg = Config.fromfile(ROOT / 'configs/recall/deeplabv3_r18_synthia.py')
    cfg.model.backbone.init_cfg = None
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, 384, 768), generator=generator).byte() for _ in range(2)]
    rows = []
    for name, head, loss in (
        (STOCK_STEP, 'ASPPHead', dict(type='CrossEntropyLoss', avg_non_ignore=True)),
        ('CE, fused tail', 'FusedASPPHead', dict(type='CrossEntropyLoss', avg_non_ignore=True)),
        ('RecallLoss, stock tail', 'ASPPHead', dict(type='RecallLoss')),
        ('RecallLoss, fused tail', 'FusedASPPHead', dict(type='RecallLoss')),
    ):
        model_cfg = cfg.model.copy()
        model_cfg.decode_head = dict(model_cfg.decode_head, type=head, loss_decode=loss)
        model = MODELS.build(model_cfg).to(DEVICE).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        num_classes = model.decode_head.num_classes
        labels = [torch.randint(num_classes, (1, 384, 768), generator=generator) for _ in range(2)]

        def forward(
            model: torch.nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
            labels: list[Tensor] = labels,
        ) -> Tensor:
            optimizer.step()  # of the gradients of the round before
            optimizer.zero_grad()
            samples = [
                SegDataSample(gt_sem_seg=PixelData(data=t), metainfo=dict(img_shape=t.shape[1:]))
                for t in labels
            ]
            data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
            losses = model(**data, mode='loss')
            return sum(v for k, v in losses.items() if 'loss' in k)

        rows.append(Row(name, forward, []))
    return rows


def growth_rows(shape: tuple[int, ...]) -> list[Row]:
    logits, target = batch(shape)
    loss = MODELS.build(dict(type='RecallLoss', impl='fused')).to(DEVICE)
    return [
        Row(CE, partial(F.cross_entropy, logits, target, ignore_index=IGNORE), [logits]),
        Row(RECALL, partial(loss, logits, target, ignore_index=IGNORE), [logits]),
    ]


def groups() -> Iterator[tuple[str, str, str, Callable[[], list[Row]]]]:
    """(group, shape, baseline row, rows)."""
    for name, shape in SHAPES.items():
        yield 'loss', name, CE, lambda shape=shape: loss_rows(shape)
    for name, shape in SHAPES.items():
        yield 'tail', name, STOCK_TAIL, lambda shape=shape: tail_rows(shape)
    yield 'step', 'DeepLabV3-R18 2x3x384x768', STOCK_STEP, step_rows
    growing = [(1, 19, side, side) for side in (64, 128, 256, 512, 1024)]
    for shape in ((2, 5, 32, 32), *growing):
        yield 'growth', 'x'.join(map(str, shape)), CE, lambda shape=shape: growth_rows(shape)
    for num_classes in (2, 8, 32, 128, 512, 1024):
        shape = (1, num_classes, 256, 256)
        yield 'growth', 'x'.join(map(str, shape)), CE, lambda shape=shape: growth_rows(shape)


# --------------------------------------------------------------------------------- what came of it


def environment() -> dict[str, str]:
    def installed(*names: str) -> str:
        for name in names:
            try:
                return f'{name} {version(name)}'
            except PackageNotFoundError:
                pass
        return ''

    if DEVICE.type == 'cuda':
        device = torch.cuda.get_device_name()
    else:
        info = Path('/proc/cpuinfo')
        model = re.search(r'model name\s*: (.*)', info.read_text()) if info.exists() else None
        device = f'{model[1] if model else platform.processor()}, {torch.get_num_threads()} threads'
    return {
        'device': device,
        'torch': torch.__version__,
        'mmseg': installed('onedl-mmsegmentation', 'mmsegmentation'),
        'python': platform.python_version(),
    }


def records(group: str, shape: str, baseline: str, rows: list[Row]) -> Iterator[dict[str, Any]]:
    base = next(row for row in rows if row.name == baseline)
    for row in rows:
        record: dict[str, Any] = {'group': group, 'shape': shape, 'row': row.name}
        for what, seconds in row.seconds.items():
            done = [(s, b) for s, b in zip(seconds, base.seconds[what], strict=True) if s and b]
            _, milliseconds, _ = quartiles([1e3 * s for s, _ in done])
            low, ratio, high = quartiles([s / b for s, b in done])
            record |= {
                f'{what} ms': f'{milliseconds:.2f}',
                f'{what} ratio': f'{ratio:.3f}',
                f'{what} ratio q1': f'{low:.3f}',
                f'{what} ratio q3': f'{high:.3f}',
            }
        record['peak MiB'] = f'{row.peak / 2**20:.1f}'
        record['peak ratio'] = f'{row.peak / base.peak:.3f}' if base.peak else ''
        record['rounds'] = len(done)
        record['python calls'] = row.python_calls
        yield record


def markdown(results: list[dict[str, Any]]) -> str:
    lines = []
    for group, shape in dict.fromkeys((r['group'], r['shape']) for r in results):
        lines += ['', f'### {group}: {shape}', '']
        names = [
            'forward',
            'forward+backward',
            'quartiles',
            'ms',
            'peak memory',
            'MiB',
            'Python calls',
        ]
        lines += [f'| | {" | ".join(names)} |', '|---|' + '---:|' * len(names)]
        for r in results:
            if (r['group'], r['shape']) == (group, shape):
                both = 'forward+backward'
                lines.append(
                    f'| {r["row"]} | {r["forward ratio"]} | {r[f"{both} ratio"]} '
                    f'| {r[f"{both} ratio q1"]} to {r[f"{both} ratio q3"]} | {r[f"{both} ms"]} '
                    f'| {r["peak ratio"]} | {r["peak MiB"]} | {r["python calls"]} |'
                )
    return '\n'.join(lines)


def targets(results: list[dict[str, Any]]) -> str:
    """The targets of the project, each beside what was measured, shape by shape."""
    by_row = {(r['group'], r['shape'], r['row']): r for r in results}

    def ratio(group: str, shape: str, row: str, base: str, key: str) -> float | None:
        # Both are medians of ratios to the group's baseline within a round.
        over, under = by_row.get((group, shape, row)), by_row.get((group, shape, base))
        return float(over[key]) / float(under[key]) if over and under else None

    both = 'forward+backward ratio'
    others = [
        name for name in available_losses() if name not in ('RecallLoss', 'LovaszSoftmaxLoss')
    ]
    wanted = [
        (f'{RECALL} / F.cross_entropy', 0.6, 'loss', RECALL, CE, both),
        ('its peak memory', 0.5, 'loss', RECALL, CE, 'peak ratio'),
        ('fused / stock tail', 0.25, 'tail', 'fused, RecallLoss', STOCK_TAIL, both),
        ('its peak memory', 0.1, 'tail', 'fused, RecallLoss', STOCK_TAIL, 'peak ratio'),
        ('fused, recommended / stock tail', 0.6, 'tail', 'fused, recommended', STOCK_TAIL, both),
        ('LovaszSoftmaxLoss / F.cross_entropy', 1.5, 'loss', 'LovaszSoftmaxLoss', CE, both),
        *(
            (f'LovaszSoftmaxLoss / mmseg, {w}', 0.3, 'loss', 'LovaszSoftmaxLoss',
             'mmseg LovaszLoss', f'{w} ratio')
            for w in ('forward', 'forward+backward')
        ),
        *((f'{name} / F.cross_entropy', 1.5, 'loss', name, CE, both) for name in sorted(others)),
    ]  # fmt: skip
    if DEVICE.type == 'cuda':
        wanted[1:1] = [
            (f'{RECALL} / {BYTES}', 1.5, 'loss', RECALL, BYTES, both),
            (f'{RECALL} / {COMPILED_CE}', 1.0, 'loss', RECALL, COMPILED_CE, both),
        ]
    shapes = [s for s in SHAPES if any(r['shape'] == s for r in results)]
    lines = ['', '### Targets', '', f'| ratio | target | {" | ".join(shapes)} |']
    lines += ['|---|---:|' + '---:|' * len(shapes)]
    for label, target, group, row, base, key in wanted:
        values = [ratio(group, shape, row, base, key) for shape in shapes]
        cells = ['' if v is None else f'{v:.2f}' if v <= target else f'**{v:.2f}**' for v in values]
        lines.append(f'| {label} | {target} | {" | ".join(cells)} |')
    return '\n'.join([*lines, '', 'Bold: beyond the target.'])


def write_csv(path: Path, results: list[dict[str, Any]], key: dict[str, str]) -> None:
    """Add the results, in place of those of the same device, versions and row."""
    rows = [{k: str(v) for k, v in (key | r).items()} for r in results]
    names = [*key, 'group', 'shape', 'row']
    fresh = {tuple(r[n] for n in names) for r in rows}
    if path.exists():
        with path.open(newline='') as file:
            old = [r for r in csv.DictReader(file) if tuple(r[n] for n in names) not in fresh]
        rows = old + rows
    with path.open('w', newline='') as file:
        # Rows of before may lack a column.
        writer = csv.DictWriter(file, rows[-1].keys(), restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def run_group(index: int, rounds: int) -> list[dict[str, Any]]:
    init_default_scope('mmseg')
    group, shape, baseline, make = list(groups())[index]
    rows = make()
    measure(rows, rounds, f'{group} {shape}')
    return list(records(group, shape, baseline, rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', default='', metavar='PATTERN', help='of "group shape"')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--csv', type=Path, default=Path(__file__).with_name('results.csv'))
    args = parser.parse_args()
    chosen = [i for i, g in enumerate(groups()) if re.search(args.only, f'{g[0]} {g[1]}')]
    if not chosen:
        parser.error(f'nothing matches --only {args.only!r}')
    key = environment()
    results: list[dict[str, Any]] = []
    # A process a group: what the heap of a process has kept decides whether a large tensor is
    # mapped afresh, page fault by page fault, so every group starts from the same state.
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        for group in pool.imap(partial(run_group, rounds=args.rounds), chosen):
            results += group
            write_csv(args.csv, results, key)
    print(', '.join(key.values()))
    print(targets(results))
    print(markdown(results))


if __name__ == '__main__':
    main()
