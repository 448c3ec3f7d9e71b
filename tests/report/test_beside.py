"""Metrics that only some runs have, beside their distance to the baseline."""

from __future__ import annotations

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions import beyond_means, operating_point
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
