"""Hooks around training."""

from .check_dataset import CheckDatasetHook

__all__ = ['CheckDatasetHook']
