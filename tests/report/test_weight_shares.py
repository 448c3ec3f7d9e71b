"""Which share of the weight each class gets, as the figure draws it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.blocks import Table
from mmseg_recall.report.figures import Plot
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.weights import weight_share_table
from mmseg_recall.report.summary import compare

from .page import plots_of
from .records import CLASSES, LOSSES, OTHERS, SHARE, record

SQRT, PRIOR = OTHERS
STEPS = [10, 20]


def figure(folder: Path, losses: tuple[str, ...], **changes: object) -> Plot | None:
    """Of one seed each; ``changes`` are made to all curves, None takes one away."""
    for loss in losses:
        one = record(loss, 0, panel=False)
        if one['curves'] is not None:
            curves = {**one['curves'], **changes}
            if 'iterations' in changes:
                del curves['recall']  # of the steps that are replaced
            one['curves'] = {name: values for name, values in curves.items() if values is not None}
        write_record(folder / f'{one["name"]}.json', one)
    (comparison,) = compare(load_runs([folder])[0])
    return plots_of(comparison).get('shares')


def table(folder: Path) -> Table | None:
    return weight_share_table(*compare(load_runs([folder])[0]))


def panels(plot: Plot) -> list[str]:
    return re.findall(r'>(CE|Recall|\w+ exponent=0.5|InverseFrequency)<', plot.svg)


def by_class(values: np.ndarray, times: int = len(STEPS)) -> dict[str, list[float]]:
    return {c: [float(v)] * times for c, v in zip(CLASSES, values, strict=True)}


def at_the_end(plot: Plot) -> dict[str, float]:
    found = re.findall(r'(?:: |, )([^,:]+) ([0-9.e+-]+)%', plot.alt.partition('gets')[2])
    return {label: float(value) for label, value in found}


def test_shares_are_weight_times_pixels_normalised(tmp_path: Path) -> None:
    weight = np.arange(1, 10) ** 2
    plot = figure(
        tmp_path,
        ('CE', SQRT),
        iterations=STEPS,
        weight=by_class(weight),
        pixel_share=by_class(SHARE),
    )
    assert panels(plot) == ['CE', SQRT]
    shares = at_the_end(plot)
    assert shares['CE'] == pytest.approx(0.3)
    expected = 100 * weight[-1] * SHARE[-1] / (weight * SHARE).sum()
    assert shares[SQRT] == pytest.approx(expected, rel=0.05)  # of two digits
    assert table(tmp_path).columns == ('class', 'CE', SQRT)
    assert [cell.text for cell in table(tmp_path).rows[-1]] == ['pole', '0.3', f'{expected:.1f}']


def test_a_class_without_a_pixel_gets_nothing_and_the_rest_all(tmp_path: Path) -> None:
    absent = {name: [None, None] for name in CLASSES} | {'pole': [2.0, 2.0]}
    pixels = by_class(np.zeros(9)) | {'pole': [1.0, 1.0]}
    plot = figure(tmp_path, (SQRT,), iterations=STEPS, weight=absent, pixel_share=pixels)
    assert at_the_end(plot) == {'CE': 100, SQRT: 100}


def test_a_batch_that_weighs_nothing_is_drawn(tmp_path: Path) -> None:
    nothing = by_class(np.zeros(9))
    plot = figure(tmp_path, (SQRT,), iterations=STEPS, weight=nothing, pixel_share=by_class(SHARE))
    assert at_the_end(plot)[SQRT] == 0


def test_the_best_of_the_new_losses_stand_beside_ce_and_recall_loss(tmp_path: Path) -> None:
    plot = figure(tmp_path, (*LOSSES, *OTHERS))
    assert panels(plot) == ['CE', 'Recall', SQRT, PRIOR]
    logged = ('InverseFrequency', 'SoftmaxFocal')
    assert table(tmp_path).columns[:5] == ('class', 'CE', 'Recall', SQRT, PRIOR)
    assert set(table(tmp_path).columns[5:]) == set(logged)


def test_the_papers_losses_alone_have_no_such_figure(tmp_path: Path) -> None:
    assert figure(tmp_path, tuple(LOSSES)) is None
    assert table(tmp_path) is None


def test_without_the_pixels_there_is_no_figure(tmp_path: Path) -> None:
    assert figure(tmp_path, (SQRT,), pixel_share=None) is None
