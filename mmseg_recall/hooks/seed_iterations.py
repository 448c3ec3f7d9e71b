"""Random numbers that depend on the number of the iteration alone, for exact resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmseg.registry import HOOKS


@HOOKS.register_module()
class SeedIterationsHook(Hook):
    """Seed torch before each training iteration, from the run's seed, the rank and its number.

    mmengine seeds once, when a run starts, and again when it is resumed, which then draws other
    dropout masks than a run that nobody disturbed. With this hook both draw the same, and a
    validation in between changes nothing.

    Example:
        >>> custom_hooks = [dict(type='SeedIterationsHook')]
    """

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        # Mixed, because seeds that differ by one give related streams on some devices.
        key = np.random.SeedSequence((runner.seed, get_rank(), runner.iter))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
