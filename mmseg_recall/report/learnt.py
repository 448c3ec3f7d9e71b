"""Was anything learnt at all? It comes before the question which loss or method is better."""

from __future__ import annotations

from ..diagnosis.trained import LEAST_FOUND, found_classes, has_learnt
from .blocks import Verdict
from .summary import Comparison


def nothing_learnt(comparison: Comparison) -> Verdict | None:
    """That no model of a comparison finds more than a class or two; None where one does."""
    if any(has_learnt(run.accuracy) for run in comparison.runs):
        return None
    most = max(found_classes(run.accuracy) for run in comparison.runs)
    reason = (
        f'No model here finds more than {LEAST_FOUND:g}% of more than a class or two (at most '
        f'{most} of {len(comparison.classes)}), so these runs say nothing of losses. Look at the '
        'labels and the order of the classes first; then train longer, from pretrained weights or '
        'with another learning rate.'
    )
    return Verdict('Nothing was learnt', (reason,))


def idle_runs(comparison: Comparison) -> tuple[str, ...]:
    """A sentence that names the runs that find a class or two only; none where all find more."""
    idle = [run for run in comparison.runs if not has_learnt(run.accuracy)]
    named = ', '.join(f'{run.loss} with seed {run.seed}' for run in idle)
    return (f'Finds a class or two only, and is in the means: {named}.',) if idle else ()
