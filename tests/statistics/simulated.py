"""Test sets of which the truth is known: frames of one scene are alike, seeds and losses differ."""

from __future__ import annotations

import numpy as np

from mmseg_recall.evaluation import Areas

SHARES = np.array([0.6, 0.3, 0.08, 0.02])
# How much of the variance of a difference is due to the images, at two seeds, is their name.
RATIOS = {
    '0%': {'by_seed': 0.3, 'by_scene': 0.02, 'by_both': 0.02},
    '10%': {'by_seed': 0.2, 'by_scene': 0.2, 'by_both': 0.05},
    '50%': {'by_seed': 0.1, 'by_scene': 0.3, 'by_both': 0.1},
    '80%': {'by_seed': 0.05, 'by_scene': 0.3, 'by_both': 0.05},
    '95%': {'by_seed': 0.0, 'by_scene': 0.4, 'by_both': 0.1},
    'seeds by images': {'by_seed': 0.02, 'by_scene': 0.02, 'by_both': 0.4},
}


def simulated(
    generator: np.random.Generator,
    losses: int,
    seeds: int,
    scenes: int = 20,
    frames: int = 4,
    gains: np.ndarray | float = 0.0,
    by_seed: float = 0.1,
    by_scene: float = 0.3,
    by_both: float = 0.1,
) -> tuple[Areas, np.ndarray]:
    """Areas (losses, seeds, images, C), and the scene of each image.

    What a loss and a seed, a loss and a scene, and all three have in common moves the logit of the
    accuracy of a class; ``gains``, (losses,), is what a loss is better by, in the same unit.
    """
    shape = (losses, seeds, scenes, frames, len(SHARES))
    logit = np.linspace(2.5, 0.0, len(SHARES)) + np.broadcast_to(gains, losses).reshape(
        -1, 1, 1, 1, 1
    )
    for scale, axes in (
        (0.5, (1, 1, scenes, 1, len(SHARES))),  # scenes are difficult for all
        (by_scene, (losses, 1, scenes, 1, len(SHARES))),
        (by_seed, (losses, seeds, 1, 1, len(SHARES))),
        (by_both, (losses, seeds, scenes, 1, len(SHARES))),
        (0.2, shape),
    ):
        logit = logit + generator.normal(0, scale, axes)
    label = 10_000 * SHARES * generator.uniform(0.5, 1.5, (1, 1, scenes, frames, len(SHARES)))
    label = np.broadcast_to(label, shape).astype(np.int64)
    hit = (label / (1 + np.exp(-logit))).astype(np.int64)
    # What one class loses the next one is given.
    predicted = hit + np.roll(label - hit, 1, axis=-1)
    flat = (losses, seeds, scenes * frames, len(SHARES))
    areas = Areas(*(array.reshape(flat) for array in (hit, predicted, label)))
    return areas, np.repeat(np.arange(scenes), frames)
