from math import fsum

from hypothesis import strategies as st

from .common import Pixels, Result, nll, softmax


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional=dict(gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5])))


def loss(pixels: Pixels, num_classes: int, gamma: float = 1.0) -> Result:
    if not pixels:
        return 0.0, []
    values, gradient = [], []
    for z, y in pixels:
        p = softmax(z)
        q = fsum(v for c, v in enumerate(p) if c != y)  # 1 - p_y, without cancellation
        value = nll(z, y)
        values.append(q**gamma * value)
        # -p_y d/dp_y of (1 - p)^g (-log p): the factor shared by row y of the Jacobian
        slope = q**gamma + (gamma * q ** (gamma - 1) * value * p[y] if gamma and q else 0.0)
        gradient.append([slope * (p[c] - (c == y)) / len(pixels) for c in range(num_classes)])
    return fsum(values) / len(pixels), gradient
