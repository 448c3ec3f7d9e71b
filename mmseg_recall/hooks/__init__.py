"""Hooks around training."""

from .check_dataset import CheckDatasetHook
from .class_weight_hook import ClassWeightHook

__all__ = ['CheckDatasetHook', 'ClassWeightHook']
