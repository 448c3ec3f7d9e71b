"""Hooks around training."""

from ..stack import check_stack

check_stack()

from .check_dataset import CheckDatasetHook  # noqa: E402
from .class_weight_hook import ClassWeightHook  # noqa: E402
from .seed_iterations import SeedIterationsHook  # noqa: E402

__all__ = ['CheckDatasetHook', 'ClassWeightHook', 'SeedIterationsHook']
