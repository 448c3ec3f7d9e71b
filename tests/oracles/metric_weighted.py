from hypothesis import strategies as st

from .common import Pixels, Result, count, normalizations, weighted_cross_entropy


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        dict(
            metric=st.sampled_from(['recall', 'precision', 'dice', 'f1', 'jaccard', 'tversky']),
        ),
        optional=dict(alpha=st.floats(0, 2), beta=st.floats(0, 2), normalization=normalizations),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    metric: str,
    alpha: float = 0.5,
    beta: float = 0.5,
    normalization: str = 'pixels',
) -> Result:
    n, tp, predicted = count(pixels, num_classes)
    weight = []
    for c in range(num_classes):
        fp, fn = predicted[c] - tp[c], n[c] - tp[c]
        denominator = {
            'recall': tp[c] + fn,
            'precision': tp[c] + fp,
            'dice': (2 * tp[c] + fp + fn) / 2,
            'f1': tp[c] + fp / 2 + fn / 2,
            'jaccard': tp[c] + fp + fn,
            'tversky': tp[c] + alpha * fp + beta * fn,
        }[metric]
        weight.append(1.0 - (tp[c] / denominator if denominator else 0.0))
    return weighted_cross_entropy(pixels, weight, normalization)
