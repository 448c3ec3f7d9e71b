"""Recall loss and the losses it is compared with, for MMSegmentation.

Importing this package registers everything in mmseg's registries, which is what
``custom_imports = dict(imports=['mmseg_recall'])`` does in a config.
"""

from .stack import apply_workarounds, check_stack

check_stack()
apply_workarounds()

from . import datasets, evaluation, hooks, losses, models  # noqa: E402, F401  (importing registers)

__version__ = '0.1.0'
