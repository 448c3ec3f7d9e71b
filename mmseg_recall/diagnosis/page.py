"""A diagnosis as tables for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from ..statistics import SUPPORTED, with_interval
from .advice import METRICS
from .judge import ClassRow, Diagnosis

COLUMNS = ('class', 'pixels %', 'images %', 'objects', 'median size', 'in a batch %', 'steps')


def as_json(diagnosis: Diagnosis) -> str:
    """Everything, with the keys of :class:`Diagnosis`."""
    content = diagnosis._asdict()
    content['classes'] = [row._asdict() for row in diagnosis.classes]
    content['faults'] = [fault._asdict() for fault in diagnosis.faults]
    content['offsets'] = diagnosis.offsets and diagnosis.offsets._asdict()
    content['regime'] = diagnosis.regime and diagnosis.regime.name
    return json.dumps(content, indent=1, ensure_ascii=False) + '\n'


def _cells(diagnosis: Diagnosis) -> list[list[str]]:
    def cells(row: ClassRow) -> list[str]:
        counts = ('-' if v is None else f'{v:.0f}' for v in (row.objects, row.size))
        shares = ('-' if v is None else f'{100 * v:.3g}' for v in (row.pixels, row.images))
        chance = '-' if row.chance is None else _per_cent(row.chance)
        return [row.name, *shares, *counts, chance, steps(row)]

    def steps(row: ClassRow) -> str:
        if row.steps is not None:
            return f'{row.steps:.1f}' if row.steps < 10 else f'{row.steps:.0f}'
        if row.chance is None:
            return '-'
        # What no crop showed may still come.
        return f'over {diagnosis.crops // diagnosis.batch_size}' if row.pixels else 'never'

    return [cells(row) for row in diagnosis.classes]


def _per_cent(share: float) -> str:
    """With two digits, or three."""
    return f'{100 * share:.{2 if share < 0.995 else 3}g}'


def _facts(diagnosis: Diagnosis) -> str:
    length = f'{diagnosis.iterations} iterations of ' if diagnosis.iterations else ''
    return (
        f'{diagnosis.images} images, {length}{diagnosis.batch_size} crops; '
        f'{_per_cent(diagnosis.ignored)}% of the pixels ignored; Gini coefficient over pixels '
        f'{diagnosis.gini:.2f}'
    )


def _advice_rows(diagnosis: Diagnosis) -> list[list[str]]:
    return [
        [
            gain['loss'],
            gain['base'],
            *(with_interval(*gain[name], sign='+') for name in METRICS),
            'shown' if gain['outcome'] == SUPPORTED else gain['outcome'],
        ]
        for gain in diagnosis.advice
    ]


ADVICE = ('loss', 'base', *METRICS, 'gain in mIoU')
FREE = (
    'Free, before any of them: post-hoc logit adjustment of a model that is trained with '
    'cross-entropy, `tools/diagnose.py CONFIG --checkpoint FILE`.'
)


def _curve_rows(diagnosis: Diagnosis) -> list[list[str]]:
    taus = dict.fromkeys(key.split('/')[0] for key in diagnosis.curve)
    return [[tau, *(f'{diagnosis.curve[f"{tau}/{name}"]:.1f}' for name in METRICS)] for tau in taus]


OFFSETS = ('class', 'offset', 'IoU as it is', 'IoU with offsets')


def _offset_rows(diagnosis: Diagnosis) -> list[list[str]]:
    """Of the classes that a test image shows."""
    offsets = diagnosis.offsets
    if offsets is None:
        return []
    rows = zip(diagnosis.classes, offsets.values, offsets.iou, strict=True)
    return [
        [row.name, f'{value:+.2f}', f'{before:.1f}', f'{after:.1f}']
        for row, value, (before, after) in rows
        if before is not None and after is not None
    ]


def _evidence(diagnosis: Diagnosis) -> str:
    if diagnosis.regime is None:
        return ''
    nearest = f'The nearest of the measured regimes is {diagnosis.regime.name}'
    if not diagnosis.is_near:
        nearest = f'No measured regime is near, so try before you trust. {nearest}'
    if not diagnosis.advice:
        return f'{nearest}; no loss is seen to gain there.'
    return (
        f'{nearest} (rarest class {100 * diagnosis.regime.rarest:.2g}% of the pixels, Gini '
        f'{diagnosis.regime.gini:.2f}, {diagnosis.regime.epochs:.1f} epochs). There, against '
        'cross-entropy, in points, with intervals of 95%. A base goes into `_base_` of a config as '
        '`mmseg_recall::_base_/losses/BASE`:'
    )


def as_markdown(diagnosis: Diagnosis) -> str:
    """A page."""
    parts = [f'# Diagnosis of {_cell(diagnosis.config)}', diagnosis.verdict, _facts(diagnosis)]
    parts.append(_markdown(COLUMNS, _cells(diagnosis)))
    parts.append(
        'Objects and their median size, in pixels, are connected components in the crops of one '
        'epoch; the last columns are the chance that a batch shows the class, and the steps until '
        f'one does, from {diagnosis.crops} crops.'
    )
    if diagnosis.faults:
        parts += ['## Faults', _markdown(('fault', 'where', 'cure'), diagnosis.faults)]
    if diagnosis.regime:
        parts += ['## What to try', _evidence(diagnosis)]
        if diagnosis.advice:
            parts.append(_markdown(ADVICE, _advice_rows(diagnosis)))
        parts.append(FREE)
    if diagnosis.curve:
        parts += [
            '## The trained model',
            _cell(' '.join(diagnosis.trained)),
            _markdown(('', *METRICS), _curve_rows(diagnosis)),
        ]
    if diagnosis.offsets:
        parts.append(_markdown(OFFSETS, _offset_rows(diagnosis)))
    return '\n\n'.join(parts) + '\n'


def _cell(text: str) -> str:
    return re.sub(r'([|<>`\\*_\[\]])', r'\\\1', ' '.join(str(text).split()))


def _markdown(columns: Any, rows: Any) -> str:
    lines = ['| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
    return '\n'.join(lines + ['| ' + ' | '.join(map(_cell, row)) + ' |' for row in rows])


def as_tables(diagnosis: Diagnosis) -> list[Any]:
    """What a terminal shows, for rich."""

    def table(columns: Any, rows: Any, title: str) -> Table:
        # What is to be copied is not cut off.
        shown = Table(*(Column(name, overflow='fold') for name in columns), title=title)
        for row in rows:
            shown.add_row(*map(escape, row))
        return shown

    shown: list[Any] = [table(COLUMNS, _cells(diagnosis), _facts(diagnosis))]
    if diagnosis.faults:
        shown.append(table(('fault', 'where', 'cure'), diagnosis.faults, 'Faults'))
    if diagnosis.regime:
        shown.append(escape(_evidence(diagnosis)))
    if diagnosis.advice:
        shown.append(table(ADVICE, _advice_rows(diagnosis), 'What to try'))
        shown.append(escape(FREE))
    if diagnosis.curve:
        shown.append(escape(' '.join(diagnosis.trained)))
        rows = _curve_rows(diagnosis)
        shown.append(table(('', *METRICS), rows, 'Without another training'))
    if diagnosis.offsets:
        shown.append(table(OFFSETS, _offset_rows(diagnosis), 'An offset for each class'))
    return [*shown, escape(diagnosis.verdict)]
