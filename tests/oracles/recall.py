from hypothesis import strategies as st

from .common import Pixels, Result, count, normalizations, weighted_cross_entropy

# Smoothing and floor not below what float32 can weigh.
recall_options = dict(
    smoothing=st.just(0.0) | st.floats(1e-6, 10),
)


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=dict(recall_options, normalization=normalizations))


def recall_weight(
    pixels: Pixels,
    num_classes: int,
    smoothing: float = 0.0,
) -> list[float]:
    """Of the first batch."""
    n, tp, _ = count(pixels, num_classes)
    return [
        (n[c] - tp[c] + smoothing) / (n[c] + smoothing) if n[c] else 0.0 for c in range(num_classes)
    ]


def loss(
    pixels: Pixels, num_classes: int, normalization: str = 'pixels', **options: float
) -> Result:
    weight = recall_weight(pixels, num_classes, **options)
    return weighted_cross_entropy(pixels, weight, normalization)
