"""Put the segmentation losses of other libraries, and ours, through the same properties.

    python benchmarks/rivals.py --out docs/rivals.md --chart docs/images/rivals.svg

`make rivals` installs the libraries and writes the page and its chart.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 4
IGNORED = 255
COUNTS = [9000, 5000, 1000, 200]
YES, NO, UNCLAIMED = 'yes', '**no**', '-'
LIBRARIES = {
    'torch': 'torch',
    'segmentation_models.pytorch': 'segmentation_models_pytorch',
    'MONAI': 'monai',
    'kornia': 'kornia',
    'mmseg': 'onedl-mmsegmentation',
    'mmseg_recall': 'mmseg_recall',
}


INTRODUCTION = """\
# Other libraries

The losses for several exclusive classes of other libraries, and ours, under the same checks.
`make rivals` installs the libraries, runs the checks and writes this page.

![Losses that pass each check, by library, and their times by kind](images/rivals.svg)

Versions: {versions}.

`-` means that the loss does not claim it, as it has no such option. **no** is not always a fault:
it can say that a loss is defined in another way, which you have to know.

- **ignored**: other logits at ignored pixels change neither loss nor gradient.
- **all ignored**: a batch without valid pixels gives 0, with gradients of 0.
- **absent**: a perfect prediction costs nothing, though a class is neither
  shown nor predicted.
- **missed**: with all pixels of a class taken for another, the gradient raises it at each.
- **half**: float16 and bfloat16 logits give the value of the same logits in float32, to
  1%, and finite gradients.
- **defaults**: with required arguments only, a finite scalar; MONAI's take one-hot labels.
- **ranks**: the average of two ranks with one and three images has the gradient
  of the four images.
- **time**: forward and backward on one CPU thread, logits 2x4x256x256, cross-entropy being 1.
"""


class Rival(NamedTuple):
    """A loss as its documentation says how to use it for several classes."""

    library: str
    name: str
    make: Callable[[], nn.Module]
    ignores: bool  # whether it has an option to leave pixels out
    default: Callable[[], nn.Module]  # without any argument, or with those that are required
    column: bool = False  # takes labels of the shape (N, 1, H, W)
    whole_batch: bool = False  # claims the whole batch's gradient across ranks

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.make()(logits, target.unsqueeze(1) if self.column else target).float().mean()


def rivals() -> Iterator[Rival]:
    """Every loss for several exclusive classes."""
    kind = nn.CrossEntropyLoss
    yield Rival('torch', kind.__name__, functools.partial(kind, ignore_index=IGNORED), True, kind)
    yield from smp()
    yield from monai()
    yield from kornia()
    yield from mmseg()
    yield from ours()


def smp() -> Iterator[Rival]:
    from segmentation_models_pytorch import losses

    library = 'segmentation_models.pytorch'
    for name in ('JaccardLoss', 'DiceLoss', 'TverskyLoss', 'FocalLoss', 'LovaszLoss'):
        kind = getattr(losses, name)
        make = functools.partial(kind, mode='multiclass', ignore_index=IGNORED)
        yield Rival(library, name, make, True, functools.partial(kind, mode='multiclass'))
    kind = losses.SoftCrossEntropyLoss
    make = functools.partial(kind, ignore_index=IGNORED, smooth_factor=0.0)
    yield Rival(library, kind.__name__, make, True, kind)


def monai() -> Iterator[Rival]:
    from monai import losses

    options = dict(to_onehot_y=True, softmax=True)
    for name in (
        'DiceLoss',
        'DiceCELoss',
        'DiceFocalLoss',
        'GeneralizedDiceLoss',
        'GeneralizedDiceFocalLoss',
        'TverskyLoss',
        'MCCLoss',
    ):
        kind = getattr(losses, name)
        ignores = name in {'DiceLoss', 'TverskyLoss'}
        given = options | (dict(ignore_index=IGNORED) if ignores else {})
        yield Rival('MONAI', name, functools.partial(kind, **given), ignores, kind, column=True)
    kind = losses.FocalLoss
    make = functools.partial(kind, to_onehot_y=True, use_softmax=True, ignore_index=IGNORED)
    yield Rival('MONAI', 'FocalLoss', make, True, kind, column=True)


def kornia() -> Iterator[Rival]:
    from kornia import losses

    required = {
        'DiceLoss': {},
        'FocalLoss': dict(alpha=None),
        'TverskyLoss': dict(alpha=0.5, beta=0.5),
    }
    for name, given in required.items():
        kind = getattr(losses, name)
        make = functools.partial(kind, **given, ignore_index=IGNORED)
        yield Rival('kornia', name, make, True, functools.partial(kind, **given))
    kind = losses.LovaszSoftmaxLoss
    yield Rival('kornia', kind.__name__, kind, False, kind)


def mmseg() -> Iterator[Rival]:
    from mmseg.models import losses

    class Called(nn.Module):
        """As a decode head calls it."""

        def __init__(self, loss: nn.Module, **given: Any) -> None:
            super().__init__()
            self.loss, self.given = loss, given

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return self.loss(logits, target, **self.given)

    for name, given in {
        'CrossEntropyLoss': dict(avg_non_ignore=True),
        'DiceLoss': dict(use_sigmoid=False),
        'TverskyLoss': {},
        'LovaszLoss': dict(reduction='none'),
    }.items():
        kind = getattr(losses, name)

        def make(kind: type = kind, given: dict = given) -> nn.Module:
            return Called(kind(**given), ignore_index=IGNORED)

        def default(kind: type = kind) -> nn.Module:
            return Called(kind(), ignore_index=IGNORED)

        yield Rival('mmseg', name, make, True, default)
    kind = losses.OhemCrossEntropy
    yield Rival('mmseg', kind.__name__, kind, True, kind)


def ours() -> Iterator[Rival]:
    from mmseg_recall.losses import ClassCountsLoss, available_losses

    for name, kind in sorted(available_losses().items()):
        required = {'class_counts': COUNTS, 'metric': 'recall'}
        named = inspect.signature(kind).parameters.values()
        given = {p.name: required[p.name] for p in named if p.name in required}
        if issubclass(kind, ClassCountsLoss):
            given = dict(class_counts=COUNTS)
        make = functools.partial(kind, **given)
        yield Rival('mmseg_recall', name, make, True, make, whole_batch=True)


def batch(seed: int, share_ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, CLASSES, 24, 24, generator=generator)
    target = torch.randint(CLASSES, (4, 24, 24), generator=generator)
    ignored = torch.rand(target.shape, generator=generator) < share_ignored
    return logits, target.masked_fill(ignored, IGNORED)


def gradient(rival: Rival, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = rival(logits, target)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


def ignored_pixels_have_no_influence(rival: Rival) -> bool | None:
    if not rival.ignores:
        return None
    logits, target = batch(0)
    ignored = (target == IGNORED).unsqueeze(1).expand_as(logits)
    value, grad = gradient(rival, logits, target)
    other, _ = gradient(rival, torch.where(ignored, -3 * logits + 1, logits), target)
    return bool(torch.isclose(value, other, rtol=1e-5)) and not grad[ignored].any().item()


def all_ignored_gives_zero(rival: Rival) -> bool | None:
    if not rival.ignores:
        return None
    logits, target = batch(0)
    value, grad = gradient(rival, logits, torch.full_like(target, IGNORED))
    return value.item() == 0 and not grad.any().item()


def absent_class_changes_nothing(rival: Rival) -> bool | None:
    """With the last class neither shown nor predicted, nothing that is predicted of it counts."""
    logits, target = batch(1, share_ignored=0.0)
    target = target % (CLASSES - 1)
    logits[:, -1] = -30.0
    first, _ = gradient(rival, logits, target)
    logits[:, -1] = -60.0
    second, _ = gradient(rival, logits, target)
    perfect = 60.0 * functional.one_hot(target, CLASSES).movedim(-1, 1).float() - 30.0
    perfect[:, -1] = -60.0
    right, _ = gradient(rival, perfect, target)
    wrong, _ = gradient(rival, perfect.roll(1, dims=0), target)
    # A class that is not there must not keep a perfect prediction from its lowest value.
    return bool(torch.isclose(first, second, rtol=1e-4)) and bool(right < 1e-3 * wrong)


def missed_class_costs(rival: Rival) -> bool | None:
    """All pixels of a class taken for another: the loss sees it, and pulls the other way."""
    _, target = batch(2, share_ignored=0.0)
    right = 8.0 * functional.one_hot(target, CLASSES).movedim(-1, 1).float()
    missed = target == 2
    taken = torch.where(missed, 0, target)
    wrong = 8.0 * functional.one_hot(taken, CLASSES).movedim(-1, 1).float()
    value, grad = gradient(rival, wrong, target)
    best, _ = gradient(rival, right, target)
    pull = grad[:, 2][missed]
    return not value.item() <= best.item() and bool((pull < 0).all())


def half_precision(rival: Rival) -> bool | None:
    logits, target = batch(3)
    target = target if rival.ignores else target % CLASSES
    for dtype in (torch.float16, torch.bfloat16):
        low = (8 * logits).to(dtype)
        value, grad = gradient(rival, low, target)
        truth, _ = gradient(rival, low.float(), target)
        if not (torch.isclose(value, truth, rtol=1e-2) and grad.isfinite().all()):
            return False
    return True


def defaults_work(rival: Rival) -> bool | None:
    logits, target = batch(4, share_ignored=0.0)
    one_hot = (
        functional.one_hot(target, CLASSES).movedim(-1, 1).float()
    )  # what column labels become
    value = rival.default()(logits, one_hot if rival.column else target)
    return value.dim() == 0 and bool(value.isfinite())


def whole_batch_across_ranks(rival: Rival, halves: dict[str, Tensor | None]) -> bool | None:
    """The average of two ranks' gradients, of unequal shares, is that of the whole batch."""
    averaged = halves[key(rival)]
    if averaged is None:
        return False
    logits, target = split_batch(rival)
    _, grad = gradient(rival, logits, target)
    equal = torch.allclose(averaged, grad, rtol=1e-4, atol=1e-5 * grad.abs().max().item())
    return equal if equal or rival.whole_batch else None


def key(rival: Rival) -> str:
    return f'{rival.library} {rival.name}'


def split_batch(rival: Rival) -> tuple[Tensor, Tensor]:
    logits, target = batch(5)
    if not rival.ignores:
        target = target % CLASSES
    else:
        target[:1, 12:] = IGNORED
    return logits, target


def gradients_of_ranks() -> dict[str, Tensor | None]:
    """Each rank has one image and three; what DDP averages."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder,), nprocs=2)
        parts = [torch.load(Path(folder, f'{rank}.pt')) for rank in range(2)]
    return {
        name: None
        if parts[0][name] is None or parts[1][name] is None
        else torch.cat([parts[0][name], parts[1][name]]) / 2
        for name in parts[0]
    }


def work(rank: int, folder: str) -> None:
    quiet()
    store = torch.distributed.FileStore(str(Path(folder, 'store')), 2)
    torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=2)
    found: dict[str, Tensor | None] = {}
    for rival in rivals():
        logits, target = split_batch(rival)
        mine = slice(0, 1) if rank == 0 else slice(1, 4)
        try:
            found[key(rival)] = gradient(rival, logits[mine], target[mine])[1]
        except Exception:
            found[key(rival)] = None
    torch.save(found, Path(folder, f'{rank}.pt'))
    torch.distributed.destroy_process_group()


PROPERTIES: dict[str, Callable[[Rival], bool | None]] = {
    'ignored': ignored_pixels_have_no_influence,
    'all ignored': all_ignored_gives_zero,
    'absent': absent_class_changes_nothing,
    'missed': missed_class_costs,
    'half': half_precision,
    'defaults': defaults_work,
}


def verdict(check: Callable[[], bool | None]) -> str:
    try:
        answer = check()
    except Exception:  # the libraries raise whatever they like
        return NO
    return {True: YES, False: NO, None: UNCLAIMED}[answer]


def times(entries: list[Rival], rounds: int = 7) -> dict[str, float]:
    """Forward and backward on one thread, as a multiple of cross-entropy: medians of rounds."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, CLASSES, 256, 256, generator=generator)
    target = torch.randint(CLASSES, (2, 256, 256), generator=generator)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for rival in entries:
            loss = rival.make()
            given = logits.clone().requires_grad_()
            labels = target.unsqueeze(1) if rival.column else target
            start = time.perf_counter()
            try:
                loss(given, labels).mean().backward()
            except Exception:
                continue
            taken.setdefault(key(rival), []).append(time.perf_counter() - start)
    base = taken['torch CrossEntropyLoss']
    return {
        name: statistics.median(t / b for t, b in zip(values, base, strict=True))
        for name, values in taken.items()
    }


def page(entries: list[Rival]) -> str:
    ranks = gradients_of_ranks()
    cost = times(entries)
    head = ['loss', *PROPERTIES, 'ranks', 'time']
    versions = ', '.join(f'{name} {version(dist)}' for name, dist in LIBRARIES.items())
    lines = [INTRODUCTION.format(versions=versions)]
    for library in LIBRARIES:
        lines += [f'## {library}', '', f'| {" | ".join(head)} |', '|---' * len(head) + '|']
        for rival in (r for r in entries if r.library == library):
            cells = [verdict(functools.partial(check, rival)) for check in PROPERTIES.values()]
            cells.append(verdict(functools.partial(whole_batch_across_ranks, rival, ranks)))
            took = cost.get(key(rival))
            cells.append(NO if took is None else f'{took:.1f}')
            lines.append(f'| {rival.name} | {" | ".join(cells)} |')
        lines.append('')
    return '\n'.join(lines)


KINDS = {
    'cross-entropy': ('CrossEntropyLoss',),
    'focal': ('FocalLoss', 'SoftmaxFocalLoss'),
    'OHEM': ('OhemCrossEntropy', 'OHEMLoss'),
    'Dice, IoU': ('DiceLoss', 'JaccardLoss', 'SoftIoULoss'),
    'Tversky': ('TverskyLoss', 'SoftTverskyLoss'),
    'Lovasz': ('LovaszLoss', 'LovaszSoftmaxLoss'),
    'RecallLoss': ('RecallLoss',),
}
COLOURS = dict(
    zip(LIBRARIES, ['#7d8590', '#2f81c7', '#e08a00', '#1f9e89', '#9a5bd0', '#d64550'], strict=True)
)


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """The tables of the page: the cells of each loss, by library."""
    return {
        section.partition('\n')[0]: [
            [cell.strip() for cell in line.strip('|').split('|')]
            for line in section.splitlines()
            if line.startswith('| ') and not line.startswith('| loss ')
        ]
        for section in text.split('\n## ')[1:]
    }


def chart(text: str) -> str:
    """The page as an SVG: how many losses pass each check, and what losses of a kind cost."""
    from matplotlib import pyplot as plt

    tables = rows_of(text)
    style = {'svg.hashsalt': 'rivals', 'svg.fonttype': 'none', 'font.size': 8}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 3.6), width_ratios=[1.3, 1], layout='constrained'
        )
        draw_checks(left, tables)
        draw_times(right, tables)
        for axes in (left, right):
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        svg = io.StringIO()
        figure.savefig(svg, format='svg', metadata={'Date': None})
        plt.close(figure)
    return '\n'.join(line.rstrip() for line in svg.getvalue().splitlines()) + '\n'


def draw_checks(axes: Any, tables: dict[str, list[list[str]]]) -> None:
    checks = [*PROPERTIES, 'ranks']
    for y, (library, losses) in enumerate(tables.items()):
        for x, cells in enumerate(zip(*(row[1:-1] for row in losses), strict=True)):
            passed, claimed = cells.count(YES), len(cells) - cells.count(UNCLAIMED)
            if claimed:
                shade = dict(color=COLOURS[library], alpha=0.6 * passed / claimed, linewidth=0)
                axes.bar(x, 0.9, width=0.96, bottom=y - 0.45, **shade)
            label = f'{passed}/{claimed}' if claimed else UNCLAIMED
            axes.text(x, y, label, ha='center', va='center')
    axes.set(xlim=(-0.5, len(checks) - 0.5), ylim=(len(tables) - 0.5, -0.5))
    axes.set(xticks=range(len(checks)), yticks=range(len(tables)))
    axes.set(xticklabels=checks, yticklabels=tables, title='losses that pass / that claim it')


def draw_times(axes: Any, tables: dict[str, list[list[str]]]) -> None:
    for place, (library, losses) in enumerate(tables.items()):
        times = [
            (y + (place - 2.5) / 12, float(row[-1]))
            for y, names in enumerate(KINDS.values())
            for row in losses
            if row[0] in names and row[-1] != NO
        ]
        y, took = zip(*times, strict=True)
        axes.plot(took, y, 'o', color=COLOURS[library], label=library)
    axes.set(yticks=range(len(KINDS)), yticklabels=KINDS, ylim=(len(KINDS) - 0.5, -0.5))
    ticks = [1, 2, 5, 10, 20]
    axes.set(xscale='log', xticks=ticks, xticklabels=ticks)
    axes.set(title='time, cross-entropy being 1')
    axes.minorticks_off()
    axes.grid(axis='x', color='#d8dde3', linewidth=0.6)
    axes.figure.legend(loc='outside lower center', ncols=len(tables), frameon=False)


def quiet() -> None:
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='the page to write')
    parser.add_argument('--chart', type=Path, required=True, help='the SVG of the page')
    args = parser.parse_args()
    quiet()
    text = page(list(rivals()))
    args.out.write_text(text)
    args.chart.write_text(chart(text))


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main()
