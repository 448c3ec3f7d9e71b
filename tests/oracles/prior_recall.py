from hypothesis import strategies as st

from .common import Pixels, Result, class_counts, exponents, normalizations, weighted_cross_entropy
from .inverse_frequency import static_weight
from .recall import recall_options, recall_weight


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        dict(class_counts=class_counts(num_classes)),
        optional=dict(recall_options, exponent=exponents, normalization=normalizations),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    class_counts: list[int],
    exponent: float = 1.0,
    normalization: str = 'pixels',
    **recall: float,
) -> Result:
    prior = static_weight(class_counts, num_classes, 'inverse', exponent)
    batch = recall_weight(pixels, num_classes, **recall)
    weight = [a * b for a, b in zip(prior, batch, strict=True)]
    return weighted_cross_entropy(pixels, weight, normalization)
