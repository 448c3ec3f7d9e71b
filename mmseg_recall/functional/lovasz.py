"""Lovasz-Softmax: the convex surrogate of the intersection over union."""

from __future__ import annotations

from torch import Tensor

from .checks import check_shapes
from .engines import pick_engine


def lovasz_softmax(
    logits: Tensor, target: Tensor, *, ignore_index: int | None = 255, impl: str = 'auto'
) -> Tensor:
    """Lovasz-Softmax over the valid pixels of the batch, averaged over the classes present.

        L = mean_c sum_k e_(k) (J_k - J_{k-1})

    with e_n = 1 - p_n^c where y_n = c and p_n^c elsewhere, e_(1) >= e_(2) >= ... those errors in
    order, and J_k the Jaccard distance of class c when the k pixels of largest error are wrong.

    Args:
        logits: (N, C, ...), any floating type; float16 and bfloat16 compute in float32.
        target: (N, ...), integer class ids.
        ignore_index: Id of the pixels that take no part; None for none.
        impl: Which engine: see :func:`mmseg_recall.functional.engines.pick_engine`.

    Returns:
        Scalar, float32 (float64 for float64 logits), in [0, 1]; 0, connected to the graph, when
        no pixel is valid. NaN logits give NaN.

    Raises:
        ValueError: As :func:`class_nll_sums`.

    Example:
        >>> import torch
        >>> lovasz_softmax(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)

    Source: Berman et al. 2018, Eq. 9 to 11.
    """
    check_shapes(logits, target)
    return pick_engine(logits, impl).lovasz_softmax(logits, target.long(), ignore_index)
