"""Hooks around training."""

from .check_dataset import CheckDatasetHook
from .class_weight_hook import ClassWeightHook
from .seed_iterations import SeedIterationsHook

__all__ = ['CheckDatasetHook', 'ClassWeightHook', 'SeedIterationsHook']
