"""Datasets, the converters that make them, and the statistics that the losses read.

A dataset is one module with its class. Nobody edits a list.
"""

from ..stack import check_stack

check_stack()

from importlib import import_module  # noqa: E402
from pkgutil import iter_modules  # noqa: E402
from typing import Any  # noqa: E402

from mmseg.datasets import BaseSegDataset  # noqa: E402

from .replayed_sampler import ReplayedInfiniteSampler  # noqa: E402


def available_datasets() -> dict[str, type[BaseSegDataset]]:
    """Every dataset of this package, by the name that a config gives as ``type``.

    Example:
        >>> 'CamVidDataset' in available_datasets()
        True
    """
    modules = [import_module(f'{__name__}.{m.name}') for m in iter_modules(__path__)]
    return {
        name: value
        for module in modules
        for name, value in sorted(vars(module).items())
        # What they share has no classes of its own.
        if isinstance(value, type)
        and issubclass(value, BaseSegDataset)
        and value.__module__ == module.__name__
        and 'METAINFO' in vars(value)
    }


globals().update(available_datasets())

__all__ = ['ReplayedInfiniteSampler', 'available_datasets', *available_datasets()]


def __getattr__(name: str) -> Any:  # tells type checkers of the names that were found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
