"""Cross-entropy of logits that are adjusted by class and label: logit adjustment and seesaw."""

from __future__ import annotations

from torch import Tensor

from .checks import check_pixel_weight, check_shapes
from .engines import pick_engine


def adjusted_nll_sum(
    logits: Tensor,
    target: Tensor,
    adjustment: Tensor,
    q: float = 0.0,
    *,
    ignore_index: int | None = 255,
    pixel_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the adjusted logits, summed over the valid pixels.

        S = sum_n u_n (-log softmax(z'_n)[y_n])
        z'_j = d_j + q max(0, d_j) + a_jy,    d_j = z_j - z_y

    for a pixel of class y with the weight u_n (1 if none is given). What is added to the logits is
    a constant for the gradient. Nothing of the size of the logits is made but their gradient, where
    an engine can.

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        adjustment: a_jy at [j, y], (C, C), or (C, 1) where it is the same for every label; of the
            computing type, contiguous, on the device of the logits.
        q: >= 0.
        ignore_index: Id of the pixels that take no part; None for none.
        pixel_weight: (N, ...), a constant factor per pixel, or None.

    Returns:
        (S, valid pixels), scalars: float32 (float64 for float64 logits), differentiable with
        respect to logits; int64.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> adjustment = torch.tensor([[3.0], [1.0]]).log()
        >>> adjusted_nll_sum(torch.zeros(1, 2, 1), torch.tensor([[1]]), adjustment)[0].exp()
        tensor(4.)
    """
    check_shapes(logits, target)
    if pixel_weight is not None:
        pixel_weight = check_pixel_weight(pixel_weight, logits, target)
    engine = pick_engine(logits)
    return engine.adjusted_nll(logits, target.long(), ignore_index, pixel_weight, adjustment, q)
