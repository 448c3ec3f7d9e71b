"""Float64 pieces of the oracles, one pixel at a time, from the written definitions.

The oracles share no code with the package and use no vectorised trick: plain Python loops over
lists of numbers. ``pixels`` is a list of (logits, label) of the *valid* pixels. An oracle is a
module named after its loss (``RecallLoss``: ``recall.py``) with

- ``options(num_classes)``: a hypothesis strategy of constructor arguments,
- ``loss(pixels, num_classes, **options)``: (value, gradient), one list of C numbers a pixel; it
  may ask for ``images``, too, the number of the image of each pixel,
- ``GRADCHECK``, options that turn off what keeps finite differences from being the gradient: a
  factor that is taken for a constant, or that changes from batch to batch.
"""

from __future__ import annotations

import math
import random

from hypothesis import strategies as st

Pixels = list[tuple[list[float], int]]
Result = tuple[float, list[list[float]]]

normalizations = st.sampled_from(['pixels', 'weights'])
averages = st.sampled_from(['batch', 'image', 'class'])
exponents = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def softmax(z: list[float]) -> list[float]:
    m = max(z)
    e = [math.exp(v - m) for v in z]
    s = math.fsum(e)
    return [v / s for v in e]


def nll(z: list[float], y: int) -> float:
    m = max(z)
    return m + math.log(math.fsum(math.exp(v - m) for v in z)) - z[y]


def argmax(z: list[float]) -> int:
    return z.index(max(z))  # the first of equals


def count(pixels: Pixels, num_classes: int) -> tuple[list[int], list[int], list[int]]:
    """(N_c, TP_c, predicted_c)."""
    n, tp, predicted = ([0] * num_classes for _ in range(3))
    for z, y in pixels:
        prediction = argmax(z)
        n[y] += 1
        predicted[prediction] += 1
        tp[y] += prediction == y
    return n, tp, predicted


def nll_sums(pixels: Pixels, num_classes: int) -> list[float]:
    """S_c, the sum of -log p over the pixels of each class."""
    return [math.fsum(nll(z, y) for z, y in pixels if y == c) for c in range(num_classes)]


def weighted_cross_entropy(pixels: Pixels, weight: list[float], normalization: str) -> Result:
    """sum_n w_y (-log p_n) over the number of pixels, or over the sum of their weights."""
    if normalization == 'pixels':
        norm = float(len(pixels))
    else:
        norm = math.fsum(weight[y] for _, y in pixels)
    if norm == 0:
        return 0.0, [[0.0] * len(z) for z, _ in pixels]
    value = math.fsum(weight[y] * nll(z, y) for z, y in pixels) / norm
    gradient = [
        [weight[y] / norm * (p - (c == y)) for c, p in enumerate(softmax(z))] for z, y in pixels
    ]
    return value, gradient


def through_softmax(p: list[float], dp: list[float]) -> list[float]:
    """dL/dz from dL/dp: dz_c = p_c (dp_c - sum_k p_k dp_k)."""
    mean = math.fsum(a * b for a, b in zip(p, dp, strict=True))
    return [a * (b - mean) for a, b in zip(p, dp, strict=True)]


def regions(
    labels: list[int], images: list[int], average: str
) -> list[tuple[int, list[int], float]]:
    """(class, numbers of the pixels of its image, share of the mean) of each class of an image.

    For 'batch' all pixels are one image.
    """
    image_of = [0 for _ in images] if average == 'batch' else images
    present = sorted(set(zip(image_of, labels, strict=True)))
    found = []
    for image, c in present:
        if average == 'class':
            share = 1 / len(set(labels)) / sum(other == c for _, other in present)
        else:
            share = 1 / len(set(image_of)) / sum(other == image for other, _ in present)
        found.append((c, [n for n, other in enumerate(image_of) if other == image], share))
    return found


def class_counts(num_classes: int) -> st.SearchStrategy[list[int]]:
    """Pixel counts of a training set, some classes never seen, at least one seen."""

    def counts(seed: int) -> list[int]:
        rng = random.Random(seed)
        counts = [rng.randint(1, 500) if rng.random() < 0.8 else 0 for _ in range(num_classes)]
        return counts if any(counts) else [1] * num_classes

    return st.integers(0, 2**31).map(counts)


def tempered(weight: list[float], exponent: float) -> list[float]:
    """w_c^e; what weighs nothing stays so."""
    return [w**exponent if w else 0.0 for w in weight]
