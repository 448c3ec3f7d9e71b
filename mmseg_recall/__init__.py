"""Recall loss and the losses it is compared with, for PyTorch and MMSegmentation.

With torch alone the losses and their functions are here:

    >>> from mmseg_recall import RecallLoss

Where an MMSegmentation stack is installed, importing this package also registers everything in
mmseg's registries, which is what ``custom_imports = dict(imports=['mmseg_recall'])`` does in a
config.
"""

from typing import Any

from . import functional, losses
from .functional import *  # noqa: F403
from .losses import *  # noqa: F403
from .stack import find_stack

__version__ = '0.1.0'

__all__ = [*functional.__all__, *losses.__all__]

if find_stack():
    from . import registration  # noqa: F401  (importing registers)


def __getattr__(name: str) -> Any:  # tells type checkers of the losses that were found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
