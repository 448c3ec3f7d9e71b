"""What does each class get of the loss? The logged weights, and times the pixels of the batch."""

from __future__ import annotations

from textwrap import fill

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from ..blocks import Cell, Section, Table, number, section, shown
from ..figures import INK, Plot, legend, plot, subplots
from ..paper import PAPER_NAMES
from ..summary import BASELINE, Comparison, Loss

ORDER = 80

MAX_CURVES = 12
MAX_SHARES = 4
MAX_LAYERS_NAMED = 20
MAX_TITLE = 32
# Seen on white and on dark alike, which a ramp through yellow is not.
RAMP = ('#b3202f', '#e05a4e', '#e08a00', '#5d9732', '#1f9e89', '#2f81c7', '#7a5bd0')
SMOOTHING_SHARE = 0.05


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if comparison.classifies:
        return None
    plots = shown(weight_curves(comparison), shares_over_iterations(comparison))
    return section('', plots, weight_share_table(comparison))


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
    losses = sorted(
        comparison.losses,
        key=lambda loss: (
            loss.label != 'Recall',
            loss.label in PAPER_NAMES,
            -loss.metric('mIoU').mean,
        ),
    )
    curves = {loss.label: logged(loss, classes, 'weight', 'pixel_share') for loss in losses}
    known = {label: found for label, found in curves.items() if found is not None}
    if known.keys() <= PAPER_NAMES.keys():
        return {}
    # CE logs nothing, but its batches are drawn as those of every loss are.
    steps, (_, pixel_shares) = next(iter(known.values()))
    shares = {BASELINE: (steps, _shares(np.ones_like(pixel_shares), pixel_shares))}
    return shares | {label: (steps, _shares(*values)) for label, (steps, values) in known.items()}


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


def weight_curves(comparison: Comparison) -> Plot | None:
    """Figure 4: normalised class weights of focal and recall loss over iterations, and ratio."""
    curves = {}
    for title, label in (('focal weight', 'SoftmaxFocal'), ('recall weight', 'Recall')):
        found = _normalised(comparison.loss(label), comparison.classes)
        if found is not None:
            curves[title] = found
    if not curves:
        return None
    if len(curves) == 2:
        (steps, focal), (steps_of_recall, recall) = curves.values()
        if steps == steps_of_recall:
            with np.errstate(divide='ignore', invalid='ignore'):
                curves['ratio recall / focal'] = (steps, recall / focal)
    order = _extremes(comparison)
    ramp = LinearSegmentedColormap.from_list('rare to frequent', RAMP)
    colours = ramp(np.linspace(0, 1, len(order)))
    figure, axes = subplots(1, len(curves), 2.6 * len(curves) + 0.4, 3.6)
    for axis, (name, (steps, values)) in zip(axes.flat, curves.items(), strict=True):
        for colour, c in zip(colours, order, strict=True):
            label = comparison.classes[c]
            axis.plot(steps, values[:, c], color=colour, linewidth=1.3, label=label)
        axis.set_title(name, loc='left')
        axis.set_xlabel('iteration')
    meaning = ''
    if 'ratio recall / focal' in curves:
        axes.flat[-1].axhline(1, color=INK, linewidth=0.8)
        meaning = (
            ' Above 1 in the ratio, recall loss gives a class more of its attention than focal '
            'loss does.'
        )
    legend(figure, 'lower center')
    return plot(
        figure,
        comparison,
        'weights',
        'Class weights over the iterations, normalised to sum 1 over the classes, mean over '
        f'seeds, smoothed over {SMOOTHING_SHARE:.0%} of the run; rare classes warm, frequent '
        f'ones cool.{meaning}',
        'Line plots over iterations, a line a class: ' + ', '.join(curves) + '.',
    )


def shares_over_iterations(comparison: Comparison) -> Plot | None:
    """How much of the loss each class gets, of the first few that ``weight_shares`` gives."""
    classes = comparison.classes
    shares = dict(list(weight_shares(comparison).items())[:MAX_SHARES])
    if not shares:
        return None
    order = comparison.rarest_first
    # Every class has a layer, but a legend of 150 has no room.
    named = order if len(order) <= MAX_LAYERS_NAMED else _extremes(comparison)
    ramp = LinearSegmentedColormap.from_list('rare to frequent', RAMP)
    colours = ramp(np.linspace(0, 1, len(order)))
    columns = len(shares) if len(shares) < 4 else 2
    rows = -(-len(shares) // columns)
    figure, axes = subplots(
        rows, columns, 2.6 * columns + 0.4, 2.4 * rows + 0.9, sharex=True, sharey=True
    )
    for axis, (name, (steps, values)) in zip(axes.flat, shares.items(), strict=True):
        axis.stackplot(
            steps,
            100 * values[:, order].T,
            colors=colours,
            labels=[classes[c] if c in named else '' for c in order],
        )
        axis.set_title(fill(name, MAX_TITLE), loc='left')
        axis.margins(0)
    for axis in axes[-1]:
        axis.set_xlabel('iteration')
    figure.supylabel('share of the weight (%)', fontsize=9)
    legend(figure, 'lower center')
    rarest = order[0]
    ends = ', '.join(
        f'{label} {100 * values[-1, rarest]:.2g}%' for label, (_, values) in shares.items()
    )
    return plot(
        figure,
        comparison,
        'shares',
        'How much of the loss each class gets over the iterations: its weight times its share of '
        "the batch's pixels, normalised to sum 1 over the classes (under CE the pixels alone), "
        f'mean over seeds, smoothed over {SMOOTHING_SHARE:.0%} of the run; rare classes warm, '
        'frequent ones cool.',
        f'Stacked areas over iterations, a panel a loss, a layer a class. At the end '
        f'{classes[rarest]}, the rarest class, gets: {ends}.',
    )


def _extremes(comparison: Comparison) -> list[int]:
    """Classes to draw, rarest first; the rarest and the most frequent half if there are many."""
    order = comparison.rarest_first
    half = MAX_CURVES // 2
    return order if len(order) <= MAX_CURVES else order[:half] + order[-half:]


def _normalised(loss: Loss | None, classes: tuple[str, ...]) -> tuple[list[int], np.ndarray] | None:
    """Steps, and weights (steps, C) that sum to 1: mean over seeds, smoothed."""
    found = logged(loss, classes, 'weight') if loss is not None else None
    if found is None:
        return None
    steps, (weights,) = found
    smooth = smoothed(weights)
    with np.errstate(invalid='ignore', divide='ignore'):
        return steps, smooth / np.nansum(smooth, axis=1, keepdims=True)
