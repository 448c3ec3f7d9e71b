from math import ceil, fsum

from hypothesis import strategies as st

from .common import Pixels, Result, nll, softmax

RANKS_PIXELS = True


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=dict(ratio=st.sampled_from([0.01, 0.3, 0.7, 1.0])))


def loss(pixels: Pixels, num_classes: int, ratio: float = 0.7) -> Result:
    if not pixels:
        return 0.0, []
    keep = ceil(round(ratio * len(pixels), 6))
    kept = sorted(range(len(pixels)), key=lambda i: -nll(*pixels[i]))[:keep]
    gradient = [[0.0] * num_classes for _ in pixels]
    for i in kept:
        z, y = pixels[i]
        gradient[i] = [(p - (c == y)) / keep for c, p in enumerate(softmax(z))]
    return fsum(nll(*pixels[i]) for i in kept) / keep, gradient
