"""Stock classes of mmseg with a mixin, each registered under a name of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmseg.registry import MODELS


def register_mixed(
    mixin: type, prefix: str, base: type, fits: Callable[[Any], bool]
) -> dict[Any, type]:
    """Register ``prefix`` + the name of each registered class that is a ``base`` and fits.

    Returns:
        The new class by the stock one.
    """
    mixed: dict[Any, type] = {}
    for stock in list(MODELS.module_dict.values()):
        if isinstance(stock, type) and issubclass(stock, base) and fits(stock):
            about = f'{stock.__name__}, see :class:`{mixin.__name__}`.'
            members = {'__module__': mixin.__module__, '__doc__': about}
            metaclass: Any = type(stock)
            mixed[stock] = metaclass(f'{prefix}{stock.__name__}', (mixin, stock), members)
            MODELS.register_module(module=mixed[stock])
    return mixed
