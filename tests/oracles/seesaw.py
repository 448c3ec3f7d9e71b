from math import exp, fsum, log

from hypothesis import strategies as st

from .common import Pixels, Result

# The factors are constants for the gradient, but a finite difference moves the compensation.
GRADCHECK = dict(q=0.0)


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {}, optional=dict(p=st.sampled_from([0.0, 0.5, 1.0]), q=st.sampled_from([0.0, 1.0, 3.0]))
    )


def loss(pixels: Pixels, num_classes: int, p: float = 0.8, q: float = 2.0) -> Result:
    """Of the first batch, whose pixels are all that were seen."""
    n = [sum(y == c for _, y in pixels) for c in range(num_classes)]
    values, gradient = [], []
    for z, y in pixels:
        # Logarithms of the terms of the denominator over that of the numerator.
        terms = []
        for j in range(num_classes):
            mitigation = 0.0
            if n[j] < n[y]:
                mitigation = p * log(max(n[j], 1) / n[y])
            terms.append(z[j] - z[y] + mitigation + q * max(0.0, z[j] - z[y]))
        top = max(terms)
        scaled = [exp(t - top) for t in terms]
        total = fsum(scaled)
        values.append(top + log(total))
        gradient.append([(s / total - (j == y)) / len(pixels) for j, s in enumerate(scaled)])
    return fsum(values) / len(pixels) if pixels else 0.0, gradient
