"""Pixel counts of a training set, as a config gives them: a list, or a file of the tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**63
"""No count is as large: the weights stay far inside the range of float32."""

ClassCountsSource = Sequence[float] | str | Path


def load_class_counts(source: ClassCountsSource) -> Tensor:
    """N_c of each class from a list, or from the JSON file of ``tools/class_statistics.py``.

    Args:
        source: Counts, one a class, in [0, 2**63), not all zero, in a list, array or tensor; or a
            file's path.

    Returns:
        (C,) float64.

    Raises:
        FileNotFoundError: No such file; the message is the command that writes it.
        ValueError: Not such a file, or counts out of range; the message says which.

    Example:
        >>> load_class_counts([6, 2])
        tensor([6., 2.], dtype=torch.float64)
    """
    if isinstance(source, (str, Path)):
        return _checked(_read(Path(source))['pixels'], f'the class counts in {source}')
    # A tensor or an array.
    return _checked(source.tolist() if hasattr(source, 'tolist') else source, 'class_counts')


def load_class_names(source: ClassCountsSource) -> list[str] | None:
    """The class names in the JSON file of ``tools/class_statistics.py``; None if there are none."""
    classes = _read(Path(source)).get('classes') if isinstance(source, (str, Path)) else None
    return [str(name) for name in classes] if isinstance(classes, list) else None


def _read(path: Path) -> dict[str, Any]:
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
    if not isinstance(content, dict) or not isinstance(content.get('pixels'), list):
        raise ValueError(
            f'class counts file {path} must hold an object with a list "pixels", one count a class'
        )
    classes = content.get('classes')
    if isinstance(classes, list) and len(classes) != len(content['pixels']):
        raise ValueError(
            f'class counts file {path} names {len(classes)} classes '
            f'but counts {len(content["pixels"])}'
        )
    return content


def _checked(counts: Any, where: str) -> Tensor:
    is_list = isinstance(counts, Sequence) and not isinstance(counts, (str, bytes))
    if not is_list or not all(
        isinstance(n, (int, float)) and not isinstance(n, bool) for n in counts
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
    return torch.tensor(counts, dtype=torch.float64)
