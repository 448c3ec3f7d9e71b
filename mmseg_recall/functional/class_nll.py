"""Per-class sums of the negative log-likelihood: what every class-weighted cross-entropy needs.

A weight that depends only on the class of a pixel factors out of the sum over pixels,

    sum_n w_{y_n} (-log p_n) = sum_c w_c S_c,    S_c = sum_{n: y_n = c} -log p_n,

so the weights may be computed after the pixels were read, from the counts of that same pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_pixel_weight, check_resizable, check_shapes
from .counts import ClassCounts
from .engines import pick_engine
from .engines.engine import Weigh


def checked_pixel_nll(
    logits: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """(-log p of the true class, valid mask) per pixel, after the checks of the input.

    Args:
        logits: (N, C, ...), any floating type.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        nll (N, ...), float32 (float64 for float64 logits), 0 at invalid pixels; valid (N, ...).

    Raises:
        ValueError: As :func:`class_nll_sums`.
    """
    check_shapes(logits, target)
    return pick_engine(logits).pixel_nll(logits, target.long(), ignore_index)


def class_nll_sums(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = 255,
    pixel_weight: Tensor | None = None,
    impl: str = 'auto',
) -> tuple[Tensor, ClassCounts]:
    """Negative log-likelihood summed per class, and the class counts of the same pass.

        S_c = sum_{n: y_n = c} u_n (-log softmax(logits_n)[c])

    with u_n the pixel weight (1 if none is given).

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        pixel_weight: (N, ...), a factor per pixel of the sums (not of the counts); a constant.
        impl: Which engine: see :func:`mmseg_recall.functional.engines.pick_engine`. Those but
            'plain' read the logits once and save nothing of their size.

    Returns:
        (sums, counts): sums (C,), float32 (float64 for float64 logits), differentiable with
        respect to logits; counts, a ClassCounts.

    Raises:
        ValueError: Shapes or devices that do not fit, a target that is not integer, labels outside
            [0, C) that are not ignore_index (see ``valid_pixels`` for CUDA), an unknown impl.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 3)
        >>> sums, counts = class_nll_sums(logits, torch.tensor([[[0, 1, 1]]]))
        >>> sums
        tensor([0.6931, 1.3863])
        >>> counts.true_positives
        tensor([1, 0])

    Source: Eq. 1, whose inner sum this is.
    """
    check_shapes(logits, target)
    if pixel_weight is not None:
        pixel_weight = check_pixel_weight(pixel_weight, logits, target)
    class_sums = pick_engine(logits, impl).class_sums
    sums, *counts = class_sums(logits, target.long(), ignore_index, pixel_weight)
    return sums, ClassCounts(*counts)


def weighted_nll(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    pixel_weight: Tensor | None,
    impl: str,
    weigh: Weigh,
    normalization: str,
) -> Tensor:
    """:func:`weighted_mean` of :func:`class_nll_sums`, by weights that follow from the counts.

    ``weigh`` gives (w_c, N_c) of ClassCounts. An engine that knows what becomes of the sums spares
    them their place in the graph, which matters where there are few pixels.
    """
    check_shapes(logits, target)
    if pixel_weight is not None:
        pixel_weight = check_pixel_weight(pixel_weight, logits, target)
    engine, inputs = pick_engine(logits, impl), (logits, target.long(), ignore_index, pixel_weight)
    if engine.weighted_mean is not None:
        return engine.weighted_mean(*inputs, weigh, normalization)
    sums, *counts = engine.class_sums(*inputs)
    return weighted_mean(sums, *weigh(ClassCounts(*counts)), normalization)


def resized_class_nll_sums(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    ignore_index: int | None = 255,
    impl: str = 'fused',
) -> tuple[Tensor, ClassCounts]:
    """:func:`class_nll_sums` of the logits resized bilinearly to the target, without resizing them.

    Equal to ``class_nll_sums(F.interpolate(logits, target.shape[1:], mode='bilinear',
    align_corners=align_corners), target)``. All it allocates is a tile and the gradient of the
    low-resolution logits, where an engine can; else it is that expression, in float32.

    Args:
        logits: (N, C, h, w), any floating type; float16 and bfloat16 compute in float32.
        target: (N, H, W), integer class ids.
        align_corners: As in F.interpolate.
        ignore_index: Id of the pixels that take no part; None for none.
        impl: As of :func:`class_nll_sums`.

    Returns:
        (sums, counts), as :func:`class_nll_sums`.

    Raises:
        ValueError: Shapes that do not fit; for the target, as :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> sums, counts = resized_class_nll_sums(logits, target)
        >>> sums / target.numel()
        tensor([0.6931, 0.0000])
        >>> counts.true_positives
        tensor([64,  0])
    """
    check_resizable(logits, target)
    engine, target = pick_engine(logits, impl), target.long()
    if logits.shape[2:] == target.shape[1:]:
        sums, *counts = engine.class_sums(logits, target, ignore_index, None)
    else:
        sums, *counts = engine.resized_class_sums(logits, target, ignore_index, align_corners)
    return sums, ClassCounts(*counts)


def weighted_mean(
    sums: Tensor, weight: Tensor, pixels: Tensor, normalization: str = 'pixels'
) -> Tensor:
    """Class-weighted mean of the negative log-likelihood from its per-class sums.

        'pixels':  sum_c w_c S_c / sum_c N_c           (weights of 1 give mean cross-entropy)
        'weights': sum_c w_c S_c / sum_c w_c N_c       (F.cross_entropy(weight=w))

    over the classes with pixels; 0, connected to the graph, when there are none.

    Args:
        sums: S_c, (C,), from :func:`class_nll_sums`.
        weight: w_c, (C,); what stands at classes without pixels (NaN, say) does not matter.
        pixels: N_c, (C,).
        normalization: 'pixels' or 'weights'.

    Raises:
        ValueError: An unknown normalization.

    Example:
        >>> import torch
        >>> sums, pixels = torch.tensor([2.0, 3.0]), torch.tensor([4, 1])
        >>> weighted_mean(sums, torch.ones(2), pixels)
        tensor(1.)
    """
    weight = torch.where(pixels > 0, weight.detach(), 0.0)
    if normalization == 'pixels':
        weight = weight / pixels.sum().clamp_min(1)
    else:
        check_normalization(normalization)
        weight = weight / (weight * pixels).sum().clamp_min(torch.finfo(sums.dtype).tiny)
    return (weight.to(sums.dtype) * sums).sum()


def check_normalization(normalization: str) -> None:
    """Raise ValueError unless ``normalization`` is one that :func:`weighted_mean` knows."""
    if normalization not in ('pixels', 'weights'):
        raise ValueError(f"normalization must be 'pixels' or 'weights', got {normalization!r}")
