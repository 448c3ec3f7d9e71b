from hypothesis import strategies as st

from .common import Pixels, Result, count, normalizations, weighted_cross_entropy


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {},
        optional=dict(
            # Not below what float32 can weigh.
            smoothing=st.just(0.0) | st.floats(1e-6, 10),
            min_weight=st.just(0.0) | st.floats(1e-6, 1),
            normalization=normalizations,
        ),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    smoothing: float = 0.0,
    min_weight: float = 0.0,
    normalization: str = 'pixels',
) -> Result:
    n, tp, _ = count(pixels, num_classes)
    weight = [
        max((n[c] - tp[c] + smoothing) / (n[c] + smoothing), min_weight) if n[c] else 0.0
        for c in range(num_classes)
    ]
    return weighted_cross_entropy(pixels, weight, normalization)
