from hypothesis import strategies as st

from .common import Pixels, Result, softmax, through_softmax

RANKS_PIXELS = True
# An error is a sum of probabilities, rounded once a class.
ROUNDINGS_PER_CLASS = 0.25


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.just({})


def loss(pixels: Pixels, num_classes: int) -> Result:
    probabilities = [softmax(z) for z, _ in pixels]
    labels = [y for _, y in pixels]
    present = sorted(set(labels))
    if not present:
        return 0.0, []
    value, dp = 0.0, [[0.0] * num_classes for _ in pixels]
    for c in present:
        errors = [1 - p[c] if y == c else p[c] for p, y in zip(probabilities, labels, strict=True)]
        truth = labels.count(c)
        hits, jaccard_before = 0, 0.0
        ranked = sorted(range(len(errors)), key=lambda i: -errors[i])
        for rank, i in enumerate(ranked, start=1):
            hits += labels[i] == c
            jaccard = 1 - (truth - hits) / (truth + rank - hits)
            slope = (jaccard - jaccard_before) / len(present)
            value += errors[i] * slope
            dp[i][c] = -slope if labels[i] == c else slope
            jaccard_before = jaccard
    return value, [through_softmax(p, d) for p, d in zip(probabilities, dp, strict=True)]
