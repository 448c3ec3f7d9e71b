"""Weights that change over the training."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Schedule(NamedTuple):
    """How much of a class weight is in force: a mix of it with 1, from ``start`` to ``end``.

        1 + m_t (w_c - 1),    m_t = start + f((t - begin) / (until - begin)) (end - start)

    with t the training batches so far, and f(x) = x ('linear') or (1 - cos(pi x)) / 2 ('cosine')
    for x in [0, 1]; 'step' goes from start to end at ``begin``, as deferred re-weighting does.

    Args:
        start: Before ``begin``; 1 is the class weight, 0 plain cross-entropy.
        end: From ``until`` on. The defaults end as cross-entropy.
        begin: Batches before the change begins.
        until: Batches when it is complete; in a config, where it is not given, the length of the
            training. None for 'step', which needs none.
        kind: 'linear', 'cosine' or 'step'.

    Source: Cao et al. 2019, Sec. 3.3, for the step.
    """

    start: float = 1.0
    end: float = 0.0
    begin: int = 0
    until: int | None = None
    kind: str = 'linear'

    def check(self) -> None:
        """Raise ValueError for what is no schedule."""
        if self.kind not in ('linear', 'cosine', 'step'):
            raise ValueError(
                f"schedule.kind must be 'linear', 'cosine' or 'step', got {self.kind!r}"
            )
        for name, mix in (('start', self.start), ('end', self.end)):
            if not 0 <= mix <= 1:
                raise ValueError(f'schedule.{name} must be in [0, 1], got {mix}')
        for name, batches in (('begin', self.begin), ('until', self.until)):
            if batches is not None and not (isinstance(batches, int) and batches >= 0):
                raise ValueError(
                    f'schedule.{name} must be a number of iterations, 0 or more, got {batches}'
                )
        if self.kind == 'step':
            if self.until is not None:
                raise ValueError("schedule.kind 'step' changes at schedule.begin: leave out until")
        elif self.until is None:
            raise ValueError(
                'schedule.until, the iterations after which it ends, is not given, and the config '
                'has no train_cfg.max_iters to take it from'
            )
        elif self.until <= self.begin:
            raise ValueError(
                f'the schedule ends before it starts: schedule.until is {self.until}, begin is '
                f'{self.begin}'
            )

    def mix(self, batches: Tensor) -> Tensor:
        """m_t after so many batches, (), float32.

        Example:
            >>> Schedule(until=4).mix(torch.tensor(1))
            tensor(0.7500)
        """
        if self.until is None:
            progress = (batches >= self.begin).float()
        else:
            progress = ((batches - self.begin) / (self.until - self.begin)).clamp(0, 1)
            if self.kind == 'cosine':
                progress = (1 - torch.cos(math.pi * progress)) / 2
        return torch.lerp(
            torch.full_like(progress, self.start), torch.full_like(progress, self.end), progress
        )
