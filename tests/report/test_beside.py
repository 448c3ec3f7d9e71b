"""What only some runs have: metrics beside the baseline's, and when classes are found."""

from __future__ import annotations

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions import beyond_means, first_found, operating_point
from mmseg_recall.report.summary import Comparison, compare

from .records import record

# RecallLoss is above in the first metric, level in the second and below in the third.
VALUES = {'CE': (40, 60, 50), 'Recall': (55, 60, 45)}
QUESTIONS = pytest.mark.parametrize('question', [operating_point, beyond_means])


def comparison(tmp_path, question, losses=('CE', 'Recall'), without=()) -> Comparison:
    for loss in losses:
        for seed in range(3):
            made = record(loss, seed)
            if loss not in without:
                values = [value + 0.1 * seed for value in VALUES[loss]]
                made['metrics'] |= dict(zip(question.METRICS, values, strict=True))
            write_record(tmp_path / f'{loss}{seed}.json', made)
    runs, problems = load_runs([tmp_path])
    assert problems == []
    return compare(runs)[0]


@QUESTIONS
def test_each_metric_is_compared_with_the_baseline(tmp_path, question):
    one = comparison(tmp_path, question)
    ce, recall = question.answer(one, [one]).blocks[0].rows
    assert [cell.text for cell in ce] == [
        'CE', '40.1 (39.9 to 40.3)', '-', '60.1 (59.9 to 60.3)', '-', '50.1 (49.9 to 50.3)', '-',
    ]  # fmt: skip
    assert [cell.text.split(' ')[-1] for cell in recall[2::2]] == ['above', 'settled', 'below']
    assert [cell.sort for cell in recall[2::2]] == pytest.approx([15, 0, -5])


@QUESTIONS
def test_a_loss_without_them_is_left_out_and_so_is_a_page_without_its_baseline(tmp_path, question):
    one = comparison(tmp_path / 'a', question, without=('Recall',))
    assert len(question.answer(one, [one]).blocks[0].rows) == 1
    for number, options in enumerate([dict(without=('CE',)), dict(losses=('Recall',))]):
        one = comparison(tmp_path / f'b{number}', question, **options)
        assert question.answer(one, [one]) is None


def test_when_a_class_is_found_is_a_median_over_the_seeds(tmp_path):
    """Never is later than any iteration; a run that does not know takes no part."""
    found = {
        'CE': [[10, None, None, None], [30, 20, None, None], [20, None, 40, None]],
        'Recall': [[10, 10, 10, None], [10, 20, None, None], []],
        'InverseFrequency': [None] * 3,
    }
    for loss, seeds in found.items():
        for seed, iterations in enumerate(seeds):
            made = record(loss, seed)
            if iterations is not None:
                others = [5] * (len(made['classes']) - len(iterations)) if iterations else []
                made['per_class'] = {'first_found': [*iterations, *others]}
            write_record(tmp_path / f'{loss}{seed}.json', made)
    runs, problems = load_runs([tmp_path])
    assert problems == []
    (one,) = compare(runs)
    (table,) = first_found.answer(one, [one]).blocks
    assert table.columns[1:] == ('CE', 'Recall')
    assert [[cell.text for cell in row[1:]] for row in table.rows[:4]] == [
        ['20', '10'],
        ['never (1 of 3 seeds)', '15'],
        ['never (1 of 3 seeds)', 'never (1 of 2 seeds)'],
        ['-', '-'],
    ]


@pytest.mark.parametrize('values', [[1, 2], ['1', None, 2, 3], 3, None])
def test_a_record_whose_classes_have_other_values_is_named(tmp_path, values):
    made = record('CE', 0)
    made['per_class'] = {'first_found': values}
    write_record(tmp_path / 'a.json', made)
    runs, problems = load_runs([tmp_path])
    assert not runs and "a.json: damaged record, 'per_class' is malformed" in problems[0]
