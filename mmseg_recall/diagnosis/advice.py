"""What to try, with the evidence: gains measured in the regime that is nearest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..statistics import SUPPORTED

REGIMES = Path(__file__).parent / 'regimes.json'
"""Written by ``tools/measured_regimes.py`` from the published records."""
METRICS = 'mIoU', 'mAcc', 'aAcc'
BALANCED = 5.0
"""Largest by smallest share below which imbalance is no problem."""
RARE = 0.01
"""Share of pixels below which a class counts as rare."""


class Regime(NamedTuple):
    """The runs of one dataset and schedule: its data, and what each loss gained."""

    name: str
    classes: int
    rarest: float
    gini: float
    epochs: float
    gains: list[dict[str, Any]]
    """Of each loss against cross-entropy: label, base, seeds, whether a gain in mIoU is shown, and
    the differences in ``METRICS``, in points: mean and both ends of the interval of 95%."""


def regimes() -> list[Regime]:
    """All regimes that have been measured."""
    return [Regime(**regime) for regime in json.loads(REGIMES.read_text())]


def nearest_regime(rarest: float, gini: float, epochs: float) -> tuple[Regime, bool]:
    """The regime nearest in the share of the rarest class, the Gini coefficient and the length.

    A factor of ten in the share, 0.2 of the coefficient and a factor of four in the length count
    alike; one is near within 1.
    """

    def distance(regime: Regime) -> float:
        return (
            abs(math.log10(regime.rarest / max(rarest, 1e-9)))
            + abs(regime.gini - gini) / 0.2
            + abs(math.log(regime.epochs / max(epochs, 1e-9), 4))
        )

    regime = min(regimes(), key=distance)
    return regime, distance(regime) < 1


def worth_trying(regime: Regime, most: int = 4) -> list[dict[str, Any]]:
    """The losses of a regime that are seen to gain mean IoU, those that are shown to first."""
    gained = [gain for gain in regime.gains if gain['mIoU'][0] > 0]
    return sorted(gained, key=lambda gain: (gain['outcome'] != SUPPORTED, -gain['mIoU'][0]))[:most]


def is_balanced(shares: list[float]) -> bool:
    """Whether the shares of the classes present are too alike for imbalance to matter.

    Example:
        >>> is_balanced([0.5, 0.3, 0.2]), is_balanced([0.9, 0.09, 0.01])
        (True, False)
    """
    present = [share for share in shares if share > 0]
    return len(present) < 2 or max(present) < BALANCED * min(present)
