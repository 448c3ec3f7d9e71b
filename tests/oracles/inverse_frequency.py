from math import fsum

from hypothesis import strategies as st

from .common import (
    Pixels,
    Result,
    class_counts,
    exponents,
    normalizations,
    tempered,
    weighted_cross_entropy,
)


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        dict(class_counts=class_counts(num_classes)),
        optional=dict(
            mode=st.sampled_from(['inverse', 'median']),
            exponent=exponents,
            normalization=normalizations,
        ),
    )


def static_weight(
    class_counts: list[int], num_classes: int, mode: str, exponent: float
) -> list[float]:
    if mode == 'inverse':
        numerator = fsum(class_counts) / num_classes
    else:
        seen = sorted(n for n in class_counts if n)
        middle = len(seen) // 2
        numerator = seen[middle] if len(seen) % 2 else (seen[middle - 1] + seen[middle]) / 2
    return tempered([numerator / n if n else 0.0 for n in class_counts], exponent)


def loss(
    pixels: Pixels,
    num_classes: int,
    class_counts: list[int],
    mode: str = 'inverse',
    exponent: float = 1.0,
    normalization: str = 'pixels',
) -> Result:
    weight = static_weight(class_counts, num_classes, mode, exponent)
    return weighted_cross_entropy(pixels, weight, normalization)
