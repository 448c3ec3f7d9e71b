"""Per-class sums of the negative log-likelihood: what every class-weighted cross-entropy needs.

A weight that depends only on the class of a pixel factors out of the sum over pixels,

    sum_n w_{y_n} (-log p_n) = sum_c w_c S_c,    S_c = sum_{n: y_n = c} -log p_n,

so the weights may be computed after the pixels were read, from the counts of that same pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kernels
from .checks import check_pixel_weight, check_shapes, compute_dtype, valid_pixels
from .counts import ClassCounts, count_classes
from .fused import (
    differentiate_rows,
    fused_class_nll_sums,
    fused_resized_class_nll_sums,
    readable,
    score_rows,
)

IMPLS = ('auto', 'plain', 'fused')


def pixel_nll(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """-log p of the true class per pixel, shape of target; 0 where ``valid`` is False."""
    log_p = F.log_softmax(logits.to(compute_dtype(logits)), dim=1)
    safe_target = torch.where(valid, target, 0).unsqueeze(1)
    return torch.where(valid, -log_p.gather(1, safe_target).squeeze(1), 0.0)


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
    if kernels.usable(logits):
        return _PixelNll.apply(logits, readable(logits, target, ignore_index), ignore_index)
    target = target.long()
    valid = valid_pixels(target, logits.shape[1], ignore_index)
    return pixel_nll(logits, target, valid), valid


class _PixelNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int | None
    ) -> tuple[Tensor, Tensor]:
        nll = target.new_empty(target.shape, dtype=torch.float32)
        valid = target.new_empty(target.shape, dtype=torch.bool)
        score_rows(logits, target, ignore_index, nll=nll, valid=valid)
        ctx.save_for_backward(logits, target, valid)
        ctx.ignore_index = ignore_index
        ctx.mark_non_differentiable(valid)
        return nll, valid

    @staticmethod
    def backward(ctx: Any, grad_nll: Tensor, _: Any) -> tuple[Tensor, None, None]:
        logits, target, valid = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            nll = pixel_nll(logits, target, valid)
            grad = torch.autograd.grad(nll, logits, grad_nll, create_graph=True)[0]
        else:
            one = grad_nll.new_ones(logits.shape[1])
            grad = differentiate_rows(logits, target, ctx.ignore_index, one, grad_nll)
        return grad, None, None


def sum_per_class(values: Tensor, target: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Sum per-pixel ``values`` over the valid pixels of each class, accumulated in float64."""
    labels = torch.where(valid, target, num_classes).flatten()
    sums = torch.zeros(num_classes + 1, dtype=torch.float64, device=values.device)
    sums = sums.index_add(0, labels, values.flatten().double())
    return sums[:-1].to(values.dtype)


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
        impl: 'plain' is the reference; 'fused' reads the logits once, in blocks that fit the
            cache, or on a GPU by Triton kernels (where Triton is installed), and saves nothing of
            their size; 'auto' takes the faster one, which is known on CPU only. Under
            ``torch.compile`` all are 'plain', which it fuses by itself.

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
    if impl not in IMPLS:
        raise ValueError(f'impl must be one of {IMPLS}, got {impl!r}')
    check_shapes(logits, target)
    pixel_weight = check_pixel_weight(pixel_weight, logits, target)
    # On GPUs nobody has measured which one is faster.
    fused = impl == 'fused' or (impl == 'auto' and logits.device.type == 'cpu')
    if fused and not torch.compiler.is_compiling():
        return fused_class_nll_sums(logits, target, ignore_index, pixel_weight)
    target = target.long()
    num_classes = logits.shape[1]
    valid = valid_pixels(target, num_classes, ignore_index)
    nll = pixel_nll(logits, target, valid)
    if pixel_weight is not None:
        nll = nll * pixel_weight
    counts = count_classes(logits.detach().argmax(dim=1), target, num_classes, valid)
    return sum_per_class(nll, target, valid, num_classes), counts


def resized_class_nll_sums(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool = False,
    ignore_index: int | None = 255,
) -> tuple[Tensor, ClassCounts]:
    """:func:`class_nll_sums` of the logits resized bilinearly to the target, without resizing them.

    Equal to ``class_nll_sums(F.interpolate(logits, target.shape[1:], mode='bilinear',
    align_corners=align_corners), target)``. All it allocates is a tile and the gradient of the
    low-resolution logits; under ``torch.compile`` it is that expression, in float32.

    Args:
        logits: (N, C, h, w), any floating type; float16 and bfloat16 compute in float32.
        target: (N, H, W), integer class ids.
        align_corners: As in F.interpolate.
        ignore_index: Id of the pixels that take no part; None for none.

    Returns:
        (sums, counts), as :func:`class_nll_sums`. Once differentiable.

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
    if logits.dim() != 4 or target.dim() != 3:
        raise ValueError(
            'logits must be (N, C, h, w) and target (N, H, W), got '
            f'{tuple(logits.shape)} and {tuple(target.shape)}'
        )
    check_shapes(logits[:, :, :1, :1].expand(-1, -1, *target.shape[1:]), target)
    if torch.compiler.is_compiling():
        full = F.interpolate(
            logits.to(compute_dtype(logits)),
            target.shape[1:],
            mode='bilinear',
            align_corners=align_corners,
        )
        return class_nll_sums(full, target, ignore_index=ignore_index)
    return fused_resized_class_nll_sums(logits, target, ignore_index, align_corners)


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
    check_normalization(normalization)
    weight = torch.where(pixels > 0, weight.detach().to(sums.dtype), 0.0)
    total = (weight * sums).sum()
    if normalization == 'pixels':
        return total / pixels.sum().clamp_min(1)
    return total / (weight * pixels).sum().clamp_min(torch.finfo(sums.dtype).tiny)


def check_normalization(normalization: str) -> None:
    """Raise ValueError unless ``normalization`` is one that :func:`weighted_mean` knows."""
    if normalization not in ('pixels', 'weights'):
        raise ValueError(f"normalization must be 'pixels' or 'weights', got {normalization!r}")
