"""The base file of each loss, and the lines that a config needs to train with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mmengine.config import Config

from ..config import Component, as_list, loss_name, needs_class_counts
from .summary import Loss

NOT_IN_A_BASE = 'class_counts', '_scope_'
PREFIX = 'mmseg_recall::_base_/losses/'
PACKAGE = Path(__file__).parents[1]
# A wheel carries the configs in .mim; a checkout has them beside the package.
ROOTS = PACKAGE.parent, PACKAGE / '.mim'


@cache
def bases() -> dict[str, list[Component]]:
    """The losses of each file of ``configs/_base_/losses``, the recommended one first."""
    files = [path for root in ROOTS for path in root.glob('configs/_base_/losses/*.py')]
    files.sort(key=lambda path: (path.stem != 'recommended', path))
    return {
        path.name: as_list(Config.fromfile(path, import_custom_modules=False)['imbalance_loss'])
        for path in files
    }


def base_of(loss: Loss) -> str:
    """The first file with a loss: with what its configs say, or else with its label; '' of none."""
    # What tells it from another loss of its name stands behind it.
    label = loss.label.partition(' (')[0]
    for name, components in bases().items():
        if loss.components:
            found = _bare(components) == _bare(loss.components)
        else:
            found = loss_name(*components) == label
        if found:
            return name
    return ''


def _bare(losses: Sequence[Component]) -> list[Component]:
    # `mmseg_recall::` gives each part of a base a scope.
    return [{k: v for k, v in loss.items() if k not in NOT_IN_A_BASE} for loss in losses]


def to_paste(loss: Loss) -> str:
    """The lines of a config that train it with a loss; '' where nothing is known but a label."""
    base = base_of(loss)
    if not base and not loss.components:
        return ''
    lines = [f"_base_ = ['your_config.py', '{PREFIX}{base or 'ce.py'}']"]
    components = bases()[base] if base else _bare(loss.components)
    if not base:
        lines.append(f'imbalance_loss = {[dict(one) for one in components]}')
    if any(needs_class_counts(one) for one in components):
        lines.append("class_counts = 'class_counts.json', which tools/class_statistics.py writes")
    return '; '.join(lines)
