"""Which test images belong together: frames of one drive are no independent images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path


def group_images(groups: str, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    r"""The group of each image, and what is wrong with those that have none.

    Args:
        groups: A JSON file of groups by stem, or a regular expression whose first group (or whole
            match) in a stem is the group.
        names: Stems of the images.

    Returns:
        Groups by stem; an image without one stands for itself.

    Raises:
        ValueError: Neither such a file nor a regular expression.

    Example:
        >>> group_images(r'^(\w+)_', ['a_1', 'a_2', 'b_1'])
        ({'a_1': 'a', 'a_2': 'a', 'b_1': 'b'}, [])
    """
    names = sorted(set(names))
    if groups.endswith('.json'):
        try:
            known = json.loads(Path(groups).read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise ValueError(f'{groups}: no JSON file of groups by stem ({error})') from error
        if not isinstance(known, dict):
            raise ValueError(f'{groups}: must be an object of groups by stem')
        found = {name: str(known[name]) for name in names if name in known}
    else:
        try:
            pattern = re.compile(groups)
        except re.error as error:
            raise ValueError(f'--groups {groups!r} is no regular expression ({error})') from error
        matches = {name: pattern.search(name) for name in names}
        found = {name: m[1] if pattern.groups else m[0] for name, m in matches.items() if m}
    missing = [name for name in names if name not in found]
    if not missing:
        return found, []
    few = ', '.join(missing[:3]) + (f' and {len(missing) - 3} more' if len(missing) > 3 else '')
    return found, [f'{groups}: has no group for {few}; each counts as a group of its own']
