"""Read a dumped config as data: what mmengine writes into work directories and checkpoints.

A config is Python, and mmengine reads one by running it. What it dumps is assignments of literals,
which need no running; a text from somebody else is read so, or not at all.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

from mmengine.config import Config

NAMES = {'inf': math.inf, 'nan': math.nan}


def parse_config(text: str, name: str | Path) -> Config:
    """The config whose dump ``text`` is; nothing of it is run.

    Numbers, strings, ``True``, ``False``, ``None``, ``inf``, ``nan``, lists, tuples, sets, dicts,
    ``dict(...)``, and names with dots, which are read as strings (a class is dumped by its name).

    Args:
        text: As ``Config.dump()`` writes it.
        name: Of the file, for errors.

    Raises:
        ValueError: There is anything else in it; names the line.

    Example:
        >>> parse_config("model = dict(type='FCN', scale=(2, -1))", 'a.py').model
        {'type': 'FCN', 'scale': (2, -1)}
        >>> parse_config("import os", 'a.py')
        Traceback (most recent call last):
        ValueError: a.py: line 1 is code, not a value: import os
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'{name}: not a dumped config ({error})') from error
    values: dict[str, Any] = {}
    for statement in body:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise _is_code(statement, name)
        (target,) = statement.targets
        if not isinstance(target, ast.Name):
            raise _is_code(statement, name)
        try:
            values[target.id] = _value(statement.value)
        except (_Code, RecursionError, TypeError) as error:
            raise _is_code(statement, name) from error
    try:
        return Config(values, cfg_text=text, filename=str(name))
    except (KeyError, TypeError) as error:
        raise ValueError(f'{name}: not a dumped config ({error})') from error


class _Code(Exception):
    """An expression that is no literal."""


def _is_code(node: ast.stmt, name: str | Path) -> ValueError:
    line = ast.unparse(node).splitlines()[0]
    shown = line if len(line) < 60 else f'{line[:60]}...'
    return ValueError(f'{name}: line {node.lineno} is code, not a value: {shown}')


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.List(elts):
            return [_value(element) for element in elts]
        case ast.Tuple(elts):
            return tuple(_value(element) for element in elts)
        case ast.Set(elts):
            return {_value(element) for element in elts}
        case ast.Dict(keys, values) if None not in keys:
            return {_value(k): _value(v) for k, v in zip(keys, values, strict=True) if k}
        case ast.Call(ast.Name('dict'), args, keywords) if len(args) < 2:
            given = _value(args[0]) if args else {}
            if not isinstance(given, dict) or None in [keyword.arg for keyword in keywords]:
                raise _Code
            return {**given, **{str(k.arg): _value(k.value) for k in keywords}}
        case ast.Call(ast.Name('set'), [], []):
            return set()
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand)
        case ast.Name(name):
            return NAMES.get(name, name)
        case ast.Attribute(owner, name):
            return f'{_value(owner)}.{name}'
    raise _Code
