from math import log

from hypothesis import strategies as st

from .common import Pixels, Result, class_counts, weighted_cross_entropy


def options(num_classes: int) -> st.SearchStrategy[dict]:
    seen = class_counts(num_classes).map(lambda counts: [n + 1 for n in counts])
    return st.fixed_dictionaries(
        dict(class_counts=seen), optional=dict(tau=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    )


def loss(pixels: Pixels, num_classes: int, class_counts: list[int], tau: float = 1.0) -> Result:
    adjustment = [tau * log(n / sum(class_counts)) for n in class_counts]
    adjusted = [([a + b for a, b in zip(z, adjustment, strict=True)], y) for z, y in pixels]
    return weighted_cross_entropy(adjusted, [1.0] * num_classes, 'pixels')
