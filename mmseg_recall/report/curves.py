"""Logged class weights as arrays, and the share of the weight that each class gets."""

from __future__ import annotations

import numpy as np

from .paper import PAPER_NAMES
from .summary import BASELINE, Comparison, Loss
from .tables import Cell, Table, number

SMOOTHING_SHARE = 0.05


def logged(
    loss: Loss, classes: tuple[str, ...], *quantities: str
) -> tuple[list[int], list[np.ndarray]] | None:
    """Steps, and each quantity (seeds, steps, C) of the runs that logged all of them."""
    found = [run.curves for run in loss.runs if run.curves and run.curves.keys() >= {*quantities}]
    if not found:
        return None
    steps = found[0]['iterations']
    alike = [curves for curves in found if curves['iterations'] == steps]
    values = [
        [[curves[name].get(c, [None] * len(steps)) for c in classes] for curves in alike]
        for name in quantities
    ]
    return steps, [np.array(columns, dtype=float).swapaxes(1, 2) for columns in values]


def smoothed(values: np.ndarray) -> np.ndarray:
    """(seeds, steps, C) -> (steps, C): mean over seeds and the window that ends at each step."""
    steps, classes = values.shape[1:]
    window = max(1, round(SMOOTHING_SHARE * steps))
    smooth = np.full((steps, classes), np.nan)
    for i in range(steps):
        near = values[:, max(0, i - window + 1) : i + 1].reshape(-1, classes)
        count = (~np.isnan(near)).sum(axis=0)
        with np.errstate(invalid='ignore'):
            mean = np.nansum(near, axis=0) / count
        # A class that was in no batch of the window keeps its last weight.
        smooth[i] = np.where(count > 0, mean, smooth[i - 1] if i else np.nan)
    return smooth


def weight_shares(comparison: Comparison) -> dict[str, tuple[list[int], np.ndarray]]:
    """How much of the loss each class gets: w_c times its share of the pixels, summing to 1.

    Returns:
        Steps and shares (steps, C), mean over seeds and smoothed, by label: CE, RecallLoss, the
        losses that the paper does not have by mIoU, the rest; of those that log their weights. {}
        without a loss that the paper does not have.
    """
    classes = comparison.classes
    curves = {
        loss.label: logged(loss, classes, 'weight', 'pixel_share') for loss in comparison.losses
    }
    known = [loss for loss in comparison.losses if curves[loss.label] is not None]
    if not any(loss.label not in PAPER_NAMES for loss in known):
        return {}
    known.sort(
        key=lambda loss: (
            loss.label != 'Recall',
            loss.label in PAPER_NAMES,
            -loss.metric('mIoU').mean,
        )
    )
    # CE logs nothing, but its batches are drawn as those of every loss are.
    steps, (_, pixel_shares) = curves[known[0].label]
    shares = {BASELINE: (steps, _shares(np.ones_like(pixel_shares), pixel_shares))}
    for loss in known:
        steps, values = curves[loss.label]
        shares[loss.label] = steps, _shares(*values)
    return shares


def _shares(weight: np.ndarray, pixel_share: np.ndarray) -> np.ndarray:
    """(seeds, steps, C), twice -> (steps, C) that sum to 1, smoothed; 0 for absent classes."""
    product = np.nan_to_num(weight) * np.nan_to_num(pixel_share)
    total = product.sum(axis=2, keepdims=True)
    # RecallLoss weighs nothing in a batch without a miss.
    return smoothed(np.divide(product, total, out=np.zeros_like(product), where=total > 0))


def weight_share_table(comparison: Comparison) -> Table | None:
    """A row a class, a column a loss: the mean of its share over the training."""
    shares = {
        label: values.mean(axis=0) for label, (_, values) in weight_shares(comparison).items()
    }
    if not shares:
        return None
    rows = tuple(
        (Cell(name), *(number(100 * float(values[c]), 1) for values in shares.values()))
        for c, name in enumerate(comparison.classes)
    )
    note = (
        'Per cent, mean over the training and the seeds: the weight of a class times its share of '
        "the batch's pixels, normalised to sum 1 over the classes. Under CE the pixels alone; of "
        'a sum of losses, the one that has weights.'
    )
    return Table('Share of the weight by class', note, ('class', *shares), rows)
