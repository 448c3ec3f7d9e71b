"""Registers all that this package has in mmseg's registries, once a stack is known to be there."""

from mmengine.runner import Runner
from mmseg.registry import MODELS, RUNNERS

from .losses import available_losses
from .stack import apply_workarounds, rewrite_configs

apply_workarounds()
for _name, _loss_class in available_losses().items():
    MODELS.register_module(name=_name, module=_loss_class)

from . import datasets, evaluation, hooks, models  # noqa: E402, F401  (importing registers)
from .models.rewrite import complete  # noqa: E402

rewrite_configs(complete, models.rewrite)
# Configs of older versions name it: every runner swaps the losses now.
RUNNERS.register_module(name='LossRunner', module=Runner)
