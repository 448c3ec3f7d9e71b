"""Class weights and priors: from the recall of a batch, from the counts of a training set."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import widest
from .counts import ClassCounts


def recall_weight(counts: ClassCounts, smoothing: float = 0.0) -> Tensor:
    """1 - recall, the false negative rate of each class.

        w_c = (FN_c + s) / (N_c + s)    (1 - R_c for s = 0)

    Args:
        counts: Of the batch.
        smoothing: s >= 0, in pixels.

    Returns:
        (C,) float64 (float32 on devices that have none) in [0, 1]; NaN for a class without a
        pixel in the batch.

    Example:
        >>> import torch
        >>> pixels, hits = torch.tensor([4, 0]), torch.tensor([1, 0])
        >>> recall_weight(ClassCounts(pixels, hits, hits))
        tensor([0.7500,    nan], dtype=torch.float64)

    Source: Eq. 4 and 5.
    """
    pixels = widest(counts.pixels)
    false_negatives = pixels - counts.true_positives
    if smoothing:
        false_negatives, pixels = false_negatives + smoothing, pixels + smoothing
        return torch.where(counts.pixels > 0, false_negatives / pixels, float('nan'))
    return false_negatives / pixels  # 0 / 0 is NaN


def inverse_frequency_weight(pixels: Tensor) -> Tensor:
    """w_c = N / (C N_c) over a training set; 0 for a class that is never seen.

    Args:
        pixels: N_c, (C,), non-negative; C counts all classes, seen or not.

    Returns:
        (C,) float64. The mean weight of a pixel of the training set is 1 when all are seen.

    Example:
        >>> import torch
        >>> inverse_frequency_weight(torch.tensor([6, 2]))
        tensor([0.6667, 2.0000], dtype=torch.float64)

    Source: Eq. 2.
    """
    pixels = widest(pixels)
    weight = pixels.sum() / (len(pixels) * pixels.clamp_min(1.0))
    return torch.where(pixels > 0, weight, 0.0)


def median_frequency_weight(pixels: Tensor) -> Tensor:
    """w_c = median(N) / N_c, the median over the classes seen; 0 for a class that is never seen.

    Args:
        pixels: N_c, (C,), non-negative.

    Returns:
        (C,) float64.

    Example:
        >>> import torch
        >>> median_frequency_weight(torch.tensor([6, 2, 1]))
        tensor([0.3333, 1.0000, 2.0000], dtype=torch.float64)

    Source: Eigen & Fergus 2015; what the authors of the paper run as "Weighted CE".
    """
    pixels = widest(pixels)
    median = pixels[pixels > 0].quantile(0.5)
    return torch.where(pixels > 0, median / pixels.clamp_min(1.0), 0.0)


def class_balanced_weight(pixels: Tensor, beta: float | None = None) -> Tensor:
    """w_c proportional to (1 - b) / (1 - b^N_c), normalised to sum C; 0 for a class never seen.

    Args:
        pixels: N_c, (C,), non-negative.
        beta: b in [0, 1); None for (N - 1) / N with N the number of all pixels, which is what
            the authors of the recall loss use.

    Returns:
        (C,) float64.

    Example:
        >>> import torch
        >>> class_balanced_weight(torch.tensor([3, 1]))
        tensor([0.6038, 1.3962], dtype=torch.float64)

    Source: Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples".
    """
    pixels = widest(pixels)
    # b is so close to 1 that b^n loses every digit: 1 - b^n = -expm1(n log b).
    if beta is None:
        log_beta = torch.log1p(-1.0 / pixels.sum().clamp_min(1.0))
    else:
        log_beta = torch.log(torch.tensor(beta, dtype=pixels.dtype))
    weight = torch.where(pixels > 0, -1.0 / torch.expm1(pixels.clamp_min(1.0) * log_beta), 0.0)
    return weight * (len(pixels) / weight.sum())


def log_prior(pixels: Tensor, tau: float = 1.0) -> Tensor:
    """tau log pi_c with pi_c = N_c / N, the share of class c in a training set.

    Args:
        pixels: N_c, (C,), positive.
        tau: >= 0.

    Returns:
        (C,) float64.

    Raises:
        ValueError: tau < 0; a class without a pixel, whose logarithm there is not.

    Example:
        >>> import torch
        >>> log_prior(torch.tensor([3, 1]))
        tensor([-0.2877, -1.3863], dtype=torch.float64)

    Source: Menon et al. 2021, "Long-tail Learning via Logit Adjustment".
    """
    if not 0 <= tau < float('inf'):
        raise ValueError(f'tau must be >= 0 and finite, got {tau}')
    unseen = (pixels == 0).nonzero().flatten().tolist()
    if unseen:
        raise ValueError(
            f'class_counts are 0 for the classes {", ".join(map(str, unseen))}: the logarithm of '
            'their prior is infinite. Merge them into other classes, ignore them, or give them '
            'the count 1'
        )
    pixels = widest(pixels)
    return tau * (pixels.log() - pixels.sum().log())
