"""Pixel counts of a training set, as a config gives them: a list, or a file of the tool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**63
"""No count is as large: the weights stay far inside the range of float32."""

ClassCountsSource = Sequence[float] | Mapping[str, Any] | str | Path


def load_class_counts(source: ClassCountsSource, classes: Sequence[str] | None = None) -> Tensor:
    """N_c of each class from a list, or from the JSON file of ``tools/class_statistics.py``.

    Args:
        source: Counts, one a class, whole numbers in [0, 2**63), not all zero, in a list, array or
            tensor, or in a dict by name; the path of a JSON file of any of these, or the content of
            the tool's.
        classes: Names of the classes that the counts are for.

    Returns:
        (C,) float64.

    Raises:
        FileNotFoundError: No such file; the message is the command that writes it.
        ValueError: Not such a file, counts out of range, shares or per cent in place of pixels, or
            names that are not ``classes`` in their order; the message says which.

    Example:
        >>> load_class_counts([6, 2])
        tensor([6., 2.], dtype=torch.float64)
        >>> load_class_counts(dict(road=6, sky=2))
        tensor([6., 2.], dtype=torch.float64)
    """
    where = f'the class counts in {source}' if isinstance(source, (str, Path)) else 'class_counts'
    content = read_class_counts(source)
    if classes is not None:
        check_class_names(content.get('classes'), classes, where)
    return _checked(content['pixels'], where)


def load_class_names(source: ClassCountsSource) -> list[str] | None:
    """The class names that come with the counts; None if there are none."""
    return read_class_counts(source).get('classes')


def check_class_names(
    counted: Sequence[str] | None, classes: Sequence[str], where: str = 'class_counts'
) -> None:
    """Refuse counts of other classes than a dataset's, or in another order.

    Args:
        counted: Names that came with the counts; None, of a list, says nothing.
        classes: Those of the dataset.
        where: What the counts are, for the message.

    Raises:
        ValueError: They differ; names the first that does.
    """
    pairs = zip_longest(classes if counted is None else counted, classes)
    for c, (name, wanted) in enumerate(pairs):
        if name != wanted:
            raise ValueError(
                f'{where} are of another dataset: class {c} is {name!r} there and {wanted!r} in '
                'the dataset. Run `python tools/class_statistics.py CONFIG` for this dataset'
            )


def read_class_counts(source: ClassCountsSource) -> dict[str, Any]:
    """The counts, ``pixels``, and their names, ``classes``, where they have any."""
    content = _read_file(Path(source)) if isinstance(source, (str, Path)) else source
    names = None
    if isinstance(content, Mapping) and 'pixels' in content:
        names, content = content.get('classes'), content['pixels']
    elif isinstance(content, Mapping):
        names, content = list(content), list(content.values())
    # A tensor, an array, or a list of their elements.
    pixels = content.tolist() if hasattr(content, 'tolist') else content
    if isinstance(pixels, Iterable) and not isinstance(pixels, (str, bytes)):
        pixels = [n.tolist() if hasattr(n, 'tolist') else n for n in pixels]
    if not isinstance(names, (list, tuple)):
        return dict(pixels=pixels)
    if isinstance(pixels, list) and len(names) != len(pixels):
        given = f'class counts file {source}' if isinstance(source, (str, Path)) else 'class_counts'
        raise ValueError(f'{given} names {len(names)} classes but counts {len(pixels)}')
    return dict(classes=[str(name) for name in names], pixels=pixels)


def _read_file(path: Path) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f'class counts file {path} does not exist. Write it from the training set of your '
            f'config:\n    python tools/class_statistics.py CONFIG --out {path}'
        ) from None
    except OSError as error:
        raise ValueError(
            f'class counts file {path} cannot be read ({error.strerror}): give the file that '
            'tools/class_statistics.py has written'
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f'class counts file {path} is not JSON: {error}') from error
    if not isinstance(content, (dict, list)):
        raise ValueError(
            f'class counts file {path} must hold an object with a list "pixels", one count a class'
        )
    return content


def _checked(counts: Any, where: str) -> Tensor:
    if not isinstance(counts, list) or not all(
        isinstance(n, Real) and not isinstance(n, bool) for n in counts
    ):
        raise ValueError(f'{where} must be a list of numbers, one a class, got {counts!r:.100}')
    wrong = [
        f'class {c}: {n if isinstance(n, float) or n < LARGEST else "2**63 or more"}'
        for c, n in enumerate(counts)
        if not 0 <= n < LARGEST
    ]
    if wrong:
        raise ValueError(
            f'{where} must be numbers of pixels, finite and not negative; got '
            f'{", ".join(wrong[:10])}'
        )
    if sum(counts) == 0:
        raise ValueError(f'{where} are all zero: at least one class must have pixels')
    parts = [f'class {c}: {n}' for c, n in enumerate(counts) if n != int(n)]
    if parts:
        raise ValueError(
            f'{where} must be whole numbers of pixels, not shares or per cent; got '
            f'{", ".join(parts[:10])}. Multiply by the number of pixels and round, or run '
            '`python tools/class_statistics.py CONFIG`'
        )
    return torch.tensor(counts, dtype=torch.float64)
