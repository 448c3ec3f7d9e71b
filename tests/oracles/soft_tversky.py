from math import fsum

from hypothesis import assume
from hypothesis import strategies as st

from .common import Pixels, Result, averages, regions, softmax, through_softmax


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {},
        optional=dict(
            alpha=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            beta=st.sampled_from([0.5, 0.7, 1.0]),
            gamma=st.sampled_from([0.5, 1.0, 4 / 3]),
            average=averages,
        ),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    images: list[int],
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    average: str = 'batch',
) -> Result:
    probabilities = [softmax(z) for z, _ in pixels]
    labels = [y for _, y in pixels]
    terms, dp = [], [[0.0] * num_classes for _ in pixels]
    for c, members, share in regions(labels, images, average):
        own = [n for n in members if labels[n] == c]
        others = [n for n in members if labels[n] != c]
        hits = fsum(probabilities[n][c] for n in own)
        alarms = fsum(probabilities[n][c] for n in others)
        # 1 - p_c as a sum, which does not cancel.
        missed = fsum(fsum(q for k, q in enumerate(probabilities[n]) if k != c) for n in own)
        whole = hits + alpha * alarms + beta * missed
        distance = (alpha * alarms + beta * missed) / whole
        # A root of what rounds to nothing is not comparable: its slope there has no bound.
        assume(gamma <= 1 or distance < 1e-12 or distance > 1e-3)
        terms.append(share * distance ** (1 / gamma))
        outer = distance ** (1 / gamma - 1) / gamma if distance > 1e-12 else float(gamma == 1)
        for n in members:
            d_misses = -beta if labels[n] == c else alpha
            d_whole = 1 - beta if labels[n] == c else alpha
            dp[n][c] = share * outer * (d_misses - distance * d_whole) / whole
    gradient = [through_softmax(p, d) for p, d in zip(probabilities, dp, strict=True)]
    return fsum(terms), gradient
