from decimal import Decimal, localcontext

from hypothesis import strategies as st

from .common import (
    Pixels,
    Result,
    class_counts,
    exponents,
    normalizations,
    tempered,
    weighted_cross_entropy,
)


def options(num_classes: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        dict(class_counts=class_counts(num_classes)),
        optional=dict(
            beta=st.sampled_from([0.0, 0.5, 0.99]),
            exponent=exponents,
            normalization=normalizations,
        ),
    )


def loss(
    pixels: Pixels,
    num_classes: int,
    class_counts: list[int],
    beta: float | None = None,
    exponent: float = 1.0,
    normalization: str = 'pixels',
) -> Result:
    # With 60 digits: (1 - b) / (1 - b^n) cancels badly in floats.
    with localcontext() as context:
        context.prec = 60
        total = Decimal(sum(class_counts))
        b = (total - 1) / total if beta is None else Decimal(beta)
        raw = [(1 - b) / (1 - b**n) if n else Decimal(0) for n in class_counts]
        scale = num_classes / sum(raw)
        weight = [float(w * scale) for w in raw]
    return weighted_cross_entropy(pixels, tempered(weight, exponent), normalization)
