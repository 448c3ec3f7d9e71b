"""Registers all that this package has in mmseg's registries, once a stack is known to be there."""

from mmseg.registry import MODELS

from .losses import available_losses
from .stack import apply_workarounds

apply_workarounds()
for _name, _loss_class in available_losses().items():
    MODELS.register_module(name=_name, module=_loss_class)

from . import datasets, evaluation, hooks, models  # noqa: E402, F401  (importing registers)
