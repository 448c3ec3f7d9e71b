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

ClassCountsSource = Sequence[float] | dict[str, Any] | str | Path


def load_class_counts(source: ClassCountsSource) -> Tensor:
    """N_c of each class from a list, or from the JSON file of ``tools/class_statistics.py``.

    Args:
        source: Counts, one a class, in [0, 2**63), not all zero, in a list, array or tensor; or a
            file's path, or its content.

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
        return _checked(read_class_counts(source)['pixels'], f'the class counts in {source}')
    if isinstance(source, dict):
        return _checked(_check_content(source, 'class_counts')['pixels'], 'class_counts')
    # A tensor or an array.
    return _checked(source.tolist() if hasattr(source, 'tolist') else source, 'class_counts')


def load_class_names(source: ClassCountsSource) -> list[str] | None:
    """The class names in the JSON file of ``tools/class_statistics.py``; None if there are none."""
    content = read_class_counts(source) if isinstance(source, (str, Path)) else source
    classes = content.get('classes') if isinstance(content, dict) else None
    return [str(name) for name in classes] if isinstance(classes, list) else None


def read_class_counts(path: str | Path) -> dict[str, Any]:
    """The pixels, and the classes where it names them, in the file of ``class_statistics.py``."""
    try:
        content = json.loads(Path(path).read_bytes())
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
    return _check_content(content, f'class counts file {path}')


def _check_content(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get('pixels'), list):
        raise ValueError(f'{where} must hold an object with a list "pixels", one count a class')
    classes = content.get('classes')
    if isinstance(classes, list) and len(classes) != len(content['pixels']):
        raise ValueError(
            f'{where} names {len(classes)} classes but counts {len(content["pixels"])}'
        )
    return {name: content[name] for name in ('classes', 'pixels') if name in content}


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
