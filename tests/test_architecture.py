"""The package imports as docs/architecture.md says, and exports what it says it exports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmseg_recall
from mmseg_recall import functional, losses

from .tools.run import ROOT

PACKAGE = ROOT / 'mmseg_recall'


def stated() -> tuple[list[str], dict[str, set[str]]]:
    """The rooms in the order of the table, and the packages that each may import."""
    rooms: list[str] = []
    packages: dict[str, set[str]] = {}
    for line in (ROOT / 'docs/architecture.md').read_text().splitlines():
        row = re.match(r'\| (`[^|]+`) \| ([^|]+) \|', line)
        if row:
            for room in re.findall(r'`(\w+)`', row[1]):
                rooms.append(room)
                packages[room] = set(row[2].split(', '))
    return rooms, packages


ROOMS, PACKAGES = stated()


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return parts[0]


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, in functions, too."""
    folder = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(folder[: len(folder) - node.level + 1]) if node.level else []
            base += node.module.split('.') if node.module else []
            yield from ('.'.join([*base, alias.name]) for alias in node.names)


def test_every_room_stands_in_the_table() -> None:
    assert {room_of(path) for path in PACKAGE.rglob('*.py')} == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_imports_what_the_table_says(room: str) -> None:
    files = [path for path in PACKAGE.rglob('*.py') if room_of(path) == room]
    names = {name for path in files for name in imported(path)}
    ours = {tuple(name.split('.')) for name in names if name.startswith('mmseg_recall')}
    # A name that is no room is one of the package's own __init__.py.
    rooms = {parts[1] if parts[1] in ROOMS else '__init__' for parts in ours}
    assert rooms <= set(ROOMS[: ROOMS.index(room) + 1])
    others = {name.partition('.')[0] for name in names} - {'mmseg_recall'}
    assert others - set(sys.stdlib_module_names) <= PACKAGES[room]


FUNCTIONS = {
    *(
        'ClassCounts',
        'adjusted_nll_sum',
        'as_class_logits',
        'check_shapes',
        'checked_pixel_nll',
        'class_nll_sums',
    ),
    *('class_balanced_weight', 'count_classes', 'dice', 'focal_modulation', 'hardest_mean'),
    *('inverse_frequency_weight', 'jaccard', 'log_prior', 'lovasz_softmax'),
    *('median_frequency_weight', 'precision', 'recall', 'recall_weight', 'resized_class_nll_sums'),
    *('seesaw_nll_sum', 'soft_sums', 'sum_over_ranks', 'tversky', 'tversky_distance'),
    *('valid_pixels', 'weighted_mean'),
}


def test_exports_every_public_function_and_loss() -> None:
    found = losses.available_losses()
    bases = {'ClassCountsLoss', 'ClassWeightedLoss', 'SegmentationLoss', 'available_losses'}
    assert set(functional.__all__) == FUNCTIONS
    assert sorted(mmseg_recall.__all__) == sorted({*FUNCTIONS, *bases, *found})
    assert all(hasattr(mmseg_recall, name) for name in mmseg_recall.__all__)


def test_a_file_of_a_loss_is_named_after_it() -> None:
    for loss in losses.available_losses().values():
        name = loss.__module__.rpartition('.')[2]
        assert loss.default_name == f'loss_{name}'
        assert loss.__name__.removesuffix('Loss').lower() == name.replace('_', '')
