from math import fsum

from hypothesis import assume
from hypothesis import strategies as st

from .common import Pixels, Result, softmax, through_softmax


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {},
        optional=dict(
            alpha=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            beta=st.sampled_from([0.5, 0.7, 1.0]),
            gamma=st.sampled_from([0.5, 1.0, 4 / 3]),
        ),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
) -> Result:
    probabilities = [softmax(z) for z, _ in pixels]
    labels = [y for _, y in pixels]
    present = sorted(set(labels))
    if not present:
        return 0.0, []
    terms, dp = [], [[0.0] * num_classes for _ in pixels]
    for c in present:
        hits = fsum(p[c] for p, y in zip(probabilities, labels, strict=True) if y == c)
        alarms = fsum(p[c] for p, y in zip(probabilities, labels, strict=True) if y != c)
        # 1 - p_c as a sum, which does not cancel.
        missed = fsum(
            fsum(q for k, q in enumerate(p) if k != c)
            for p, y in zip(probabilities, labels, strict=True)
            if y == c
        )
        distance = (alpha * alarms + beta * missed) / (hits + alpha * alarms + beta * missed)
        # A root of what rounds to nothing is not comparable: its slope there has no bound.
        assume(gamma <= 1 or distance < 1e-12 or distance > 1e-3)
        terms.append(distance ** (1 / gamma))
        outer = distance ** (1 / gamma - 1) / gamma if distance > 1e-12 else float(gamma == 1)
        whole = hits + alpha * alarms + beta * missed
        for i, y in enumerate(labels):
            d_misses = -beta if y == c else alpha
            d_whole = 1 - beta if y == c else alpha
            slope = (d_misses - distance * d_whole) / whole
            dp[i][c] = outer * slope / len(present)
    gradient = [through_softmax(p, d) for p, d in zip(probabilities, dp, strict=True)]
    return fsum(terms) / len(present), gradient
