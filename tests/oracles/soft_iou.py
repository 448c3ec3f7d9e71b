from math import fsum

from hypothesis import strategies as st

from .common import Pixels, Result, averages, regions, softmax, through_softmax


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=dict(average=averages))


def loss(pixels: Pixels, num_classes: int, images: list[int], average: str = 'batch') -> Result:
    probabilities = [softmax(z) for z, _ in pixels]
    labels = [y for _, y in pixels]
    terms, dp = [], [[0.0] * num_classes for _ in pixels]
    for c, members, share in regions(labels, images, average):
        p = [probabilities[n][c] for n in members]
        own = [labels[n] == c for n in members]
        intersection = fsum(a * b for a, b in zip(p, own, strict=True))
        union = fsum(a + b - a * b for a, b in zip(p, own, strict=True))
        terms.append(share * (1.0 - intersection / union))
        for n, is_own in zip(members, own, strict=True):
            d_intersection, d_union = float(is_own), float(not is_own)
            slope = (d_intersection * union - intersection * d_union) / union**2
            dp[n][c] = -share * slope
    gradient = [through_softmax(p, d) for p, d in zip(probabilities, dp, strict=True)]
    return fsum(terms), gradient
