"""The losses, plain torch modules: one file a loss, named after it. Nobody edits a list.

Where an MMSegmentation stack is installed, ``mmseg_recall`` registers them all.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from .base import ClassCountsLoss, ClassWeightedLoss, SegmentationLoss


def available_losses() -> dict[str, type[SegmentationLoss]]:
    """Every loss of this package, by the name that a config gives as ``type``.

    Example:
        >>> 'RecallLoss' in available_losses()
        True
    """
    modules = [import_module(f'{__name__}.{m.name}') for m in iter_modules(__path__)]
    return {
        name: value
        for module in modules
        for name, value in sorted(vars(module).items())
        # The bases have no name for the log.
        if isinstance(value, type)
        and issubclass(value, SegmentationLoss)
        and value.__module__ == module.__name__
        and hasattr(value, 'default_name')
    }


globals().update(available_losses())

__all__ = [
    'ClassCountsLoss',
    'ClassWeightedLoss',
    'SegmentationLoss',
    'available_losses',
    *available_losses(),
]


def __getattr__(name: str) -> Any:  # tells type checkers of the names that were found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
