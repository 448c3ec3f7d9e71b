"""Tables 4 and 5: the accuracy of classifiers over all images, and by training images a class."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files

import numpy as np

from ...evaluation.shots import FEW, MANY, SHOTS, shot_of
from ...statistics import NOT_SETTLED, SUPPORTED
from ..blocks import INTERVALS, NOTHING, Cell, Section, Table, Verdict, estimated, number, ranked
from ..judge import Difference, interval_text, judge
from ..learnt import idle_runs, nothing_learnt
from ..summary import BASELINE, Comparison, Loss

ORDER = 10
METRICS = {'top1': 'all', **{shot: shot for shot in SHOTS}}
"""The paper's name of each metric, by ours."""

MAX_NAMED = 20


def answer(comparison: Comparison, comparisons: list[Comparison]) -> Section | None:
    if not comparison.classifies:
        return None
    tables = (shot_table(comparison), shot_class_table(comparison), *paper_shot_tables(comparison))
    return Section('Does SDN (Recall) win?', (shot_verdict(comparison), *tables))


def paper_name(label: str) -> str:
    """The paper's name of a method: our label without its options.

    Example:
        >>> paper_name('SDN (Recall momentum=0.9)'), paper_name('tau-norm tau=0.7')
        ('SDN (Recall)', 'tau-norm')
        >>> paper_name('SoftmaxFocal'), paper_name('WeightedFocal-DRW')
        ('Focal', 'Focal-DRW')
    """
    return re.sub(r' [\w.]+=[^ )-]+|^(Softmax|Weighted)(?=Focal)', '', label)


def method(comparison: Comparison, name: str) -> Loss | None:
    """The method of that name in the paper; None if there is none, or several variants of it."""
    found = [loss for loss in comparison.losses if paper_name(loss.label) == name]
    return found[0] if len(found) == 1 else None


def shot_table(comparison: Comparison) -> Table:
    """A row a method: accuracy over all test images, and by shot."""
    columns = [ranked(comparison, comparison.losses, name) for name in METRICS]
    rows = [
        (Cell(loss.label), Cell(str(len(loss.runs)), len(loss.runs)), *cells)
        for loss, *cells in zip(comparison.losses, *columns, strict=True)
    ]
    note = (
        f'Per cent. All: over the test images. Many: mean over the classes with more than {MANY} '
        f'training images; few: with fewer than {FEW}; medium: the others{_named(comparison)}. '
        f'{INTERVALS} Best bold, second underlined, as seen.'
    )
    return Table('Accuracy', note, ('method', 'seeds', *METRICS.values()), tuple(rows))


def _named(comparison: Comparison) -> str:
    counts, classes = _training_images(comparison), comparison.classes
    if counts is None or len(classes) > MAX_NAMED:
        return ''
    shots = shot_of(counts)
    named = (
        f'{shot} {", ".join(c for c, s in zip(classes, shots, strict=True) if s == shot) or "none"}'
        for shot in SHOTS
    )
    return f' ({"; ".join(named)})'


def _training_images(comparison: Comparison) -> np.ndarray | None:
    known = (run.pixels for run in comparison.runs if run.pixels_of == 'training')
    number = len(comparison.classes)
    return next((n for n in known if n is not None and len(n) == number), None)


def shot_class_table(comparison: Comparison) -> Table:
    """A row a class, a column a method: accuracy."""
    counts = _training_images(comparison)
    rows = []
    for c, name in enumerate(comparison.classes):
        images = math.nan if counts is None else float(counts[c])
        cells = ranked(comparison, comparison.losses, ('Acc', c))
        rows.append((Cell(name), number(images, 0), *cells))
    columns = ('class', 'training images', *(loss.label for loss in comparison.losses))
    return Table('Accuracy by class', f'Per cent. {INTERVALS}', columns, tuple(rows))


def paper_shot_tables(comparison: Comparison) -> list[Table]:
    """The paper's numbers, beside ours on the same data set; Tables 4 and 5 alone on another."""
    data = json.loads(
        (files('mmseg_recall.report') / 'paper_shots.json').read_text(encoding='utf-8')
    )
    dataset = comparison.setup['dataset']
    if dataset in data:
        return [_beside_ours(comparison, data[dataset])]
    return [_alone(table) for table in data.values()]


def _printed(table: dict) -> list[str]:
    return [name for name in METRICS.values() if name in table['values'][BASELINE]]


def _alone(table: dict) -> Table:
    rows = tuple(
        (Cell(name), *(number(values[m], mark='paper') for m in _printed(table)))
        for name, values in table['values'].items()
    )
    note = f"The paper's numbers, for what it claims; not of these runs. {' '.join(table['notes'])}"
    return Table(f"The paper's {table['title']}", note, ('method', *_printed(table)), rows)


def _beside_ours(comparison: Comparison, table: dict) -> Table:
    columns = [f'{m}: {whose}' for m in _printed(table) for whose in ('paper', 'ours')]
    rows = []
    for name, values in table['values'].items():
        loss = method(comparison, name)
        cells = []
        for ours, theirs in METRICS.items():
            if theirs in values:
                mean = Cell(NOTHING) if loss is None else estimated(comparison.estimate(loss, ours))
                cells += [number(values[theirs], mark='paper'), mean]
        rows.append((Cell(name), *cells))
    title = f"{table['title']}: the paper's numbers beside ours"
    return Table(title, ' '.join(table['notes']), ('method', *columns), tuple(rows))


def shot_verdict(comparison: Comparison) -> Verdict:
    """Whether SDN (Recall) has the highest accuracy here, and by how much it is ahead or behind."""
    nothing = nothing_learnt(comparison)
    if nothing is not None:
        return nothing
    ours = method(comparison, 'SDN (Recall)')
    others = [loss for loss in comparison.losses if loss is not ours]
    if ours is None or not others:
        return Verdict('Unknown', ('SDN (Recall) and another method are needed to say.',))
    words = {'top1': 'overall', 'few': 'few-shot'}
    outcomes, sentences = {}, []
    for metric, name in words.items():
        best = max(others, key=lambda loss: loss.metric(metric).mean)
        (judged,) = judge(comparison, [[Difference(metric, ours, other) for other in others]])
        outcomes[name] = judged.outcome
        margin = comparison.difference(ours, best, metric)
        where = 'ahead of' if margin.mean > 0 else 'behind'
        sentences.append(
            f'In {name} accuracy {ours.label} has {ours.metric(metric).mean:.1f}, '
            f'{interval_text(margin, 1)} points {where} {best.label}.'
        )
    wins = [name for name, found in outcomes.items() if found == SUPPORTED]
    if wins:
        verdict = f'Yes, in {" and in ".join(wins)} accuracy'
    elif NOT_SETTLED in outcomes.values():
        verdict = 'Not settled by these runs'
    else:
        verdict = 'No, neither in overall nor in few-shot accuracy'
    return Verdict(verdict, (*idle_runs(comparison), *sentences, comparison.basis))
