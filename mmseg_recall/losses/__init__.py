"""The registered losses. A module put into this folder is found: nobody edits a list.

The paper's taxonomy names the files: region-based, statistics-balanced, performance-balanced.
"""

from importlib import import_module
from pkgutil import iter_modules

from mmseg.registry import MODELS

from .base import ClassWeightedLoss, SegmentationLoss

__all__ = ['ClassWeightedLoss', 'SegmentationLoss', 'available_losses']


def available_losses() -> dict[str, type[SegmentationLoss]]:
    """Every registered loss of this package, by the name that a config gives as ``type``.

    Example:
        >>> 'RecallLoss' in available_losses()
        True
    """
    modules = [import_module(f'{__name__}.{m.name}') for m in iter_modules(__path__)]
    return {
        name: value
        for module in modules
        for name, value in sorted(vars(module).items())
        if isinstance(value, type)
        and issubclass(value, SegmentationLoss)
        and MODELS.module_dict.get(name) is value
    }


available_losses()  # importing a module registers its losses
