"""The base file of each loss, by the label that a report gives it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mmengine.config import Config

from ..config import loss_name

FOLDER = Path('configs/_base_/losses')


@cache
def bases() -> dict[str, str]:
    """Paths as a config of this repository names them; {} where its configs are not installed.

    Of several files with one loss the recommended one, or the first.
    """
    folder = Path(__file__).parents[2] / FOLDER
    found: dict[str, str] = {}
    for path in sorted(folder.glob('*.py'), key=lambda path: (path.stem != 'recommended', path)):
        losses = Config.fromfile(path, import_custom_modules=False)['imbalance_loss']
        label = loss_name(*(losses if isinstance(losses, list) else [losses]))
        found.setdefault(label, str(FOLDER / path.name))
    return found
