"""What a record holds, so that a damaged or foreign one is named before anything uses it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

from PIL import Image

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(v) for v in value)


def _dict(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(v) for v in value.values())


def _with(**checks: Check) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and value.keys() >= checks.keys()
        and all(check(value[name]) for name, check in checks.items())
    )


def _image(value: Any) -> bool:
    try:
        with Image.open(io.BytesIO(base64.b64decode(value, validate=True))) as image:
            image.load()
    except Exception:  # of many types, depending on which byte is wrong
        return False
    return True


def _curves(value: Any) -> bool:
    if not isinstance(value, dict) or not _list(_count)(value.get('iterations')):
        return False
    length = len(value['iterations'])
    quantities = [v for k, v in value.items() if k != 'iterations']
    values = _dict(lambda v: _list(_maybe(_number))(v) and len(v) == length)
    return all(values(quantity) for quantity in quantities)


def _tuning(value: Any) -> bool:
    """Trials of one unit and metric, the shortest of which have each learning rate once."""
    if not _with(budget=_count, learning_rates=_list(_number), trials=_list(_with()))(value):
        return False
    for unit in ('iterations', 'epochs'):
        for metric in ('mIoU', 'top1'):
            trial = _with(**{'lr': _number, unit: _count, metric: _maybe(_number)})
            if value['trials'] and all(map(trial, value['trials'])):
                shortest = min(t[unit] for t in value['trials'])
                tried = sorted(t['lr'] for t in value['trials'] if t[unit] == shortest)
                return tried == sorted(value['learning_rates'])
    return False


_PIECE = {
    **dict.fromkeys(('class', 'image'), _text),
    **dict.fromkeys(('picture', 'truth', 'prediction'), _image),
}
_WORDS = dict.fromkeys(('loss', 'key', 'model', 'dataset', 'data_root', 'schedule'), _text)
IDENTITY: dict[str, Check] = {
    **dict.fromkeys(('name', 'config_file', 'config', 'device'), _text),
    'seed': _maybe(_count),
    'setup': _with(**_WORDS, iterations=_number, batch_size=_maybe(_number)),
    'versions': _dict(_text),
}
FAILED: dict[str, Check] = {
    'failure': _with(stage=_text, returncode=_maybe(_number), log_tail=_text),
}
COMPLETE: dict[str, Check] = {
    'checkpoint': _with(rule=_text, step=_count),
    'classes': lambda value: _list(_text)(value) and bool(value),
    'palette': _maybe(_list(lambda v: _list(_count)(v) and len(v) == 3 and max(v) < 256)),
    'training_pixels': _maybe(_list(_count)),
    'images': _count,
    'areas': _with(**dict.fromkeys(('intersect', 'predicted', 'label'), _list(_count))),
    'metrics': _dict(_maybe(_number)),
    'seconds_per_iteration': _maybe(_number),
    'memory_mib': _with(process=_maybe(_number), gpu=_maybe(_number)),
    'curves': _maybe(_curves),
    'panel': _list(_with(**_PIECE)),
}


def fault_of(record: dict[str, Any]) -> str | None:
    """What is wrong with a record, in words; None if nothing is."""
    complete = record.get('status') == 'complete'
    if not complete and record.get('status') != 'failed':
        return f'its status is {record.get("status")!r}'
    checks = {**IDENTITY, **(COMPLETE if complete else FAILED)}
    for name, check in checks.items():
        if name not in record:
            return f'{name!r} is missing'
        if not check(record[name]):
            return f'{name!r} is malformed'
    if not _maybe(_tuning)(record['setup'].get('tuning')):
        return "'tuning' of its setup is malformed"
    if complete:
        of_class = record.get('per_class', {})  # of a comparison on frozen features
        if not _dict(_list(_maybe(_number)))(of_class) or any(
            len(values) not in (0, len(record['classes'])) for values in of_class.values()
        ):
            return "'per_class' is malformed"
        lengths = {len(values) for values in record['areas'].values()}
        lengths.add(len(record['training_pixels'] or record['classes']))
        if lengths != {len(record['classes'])}:
            return 'its classes, areas and training_pixels differ in length'
        areas = [record['areas'][name] for name in ('intersect', 'predicted', 'label')]
        if any(hit > min(predicted, label) for hit, predicted, label in zip(*areas, strict=True)):
            return "'areas' has more pixels hit than there are"
        if not sum(areas[2]):
            return "'areas' has no labelled pixel"
    return None
