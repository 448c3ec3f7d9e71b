"""What is left of a gain when both losses have their offsets."""

from __future__ import annotations

import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.questions.operating_point import answer
from mmseg_recall.report.summary import Comparison, compare

from .records import record

# As it is, with offsets, mean average precision: RecallLoss only draws the line elsewhere.
POINTS = {'CE': (40, 60, 50), 'Recall': (55, 60, 45)}


def comparison(tmp_path, losses=('CE', 'Recall'), without=()) -> Comparison:
    for loss in losses:
        for seed in range(3):
            made = record(loss, seed)
            if loss not in without:
                values = [value + 0.1 * seed for value in POINTS[loss]]
                names = ('mIoU_as_is', 'mIoU_with_offsets', 'mAP')
                made['metrics'] |= dict(zip(names, values, strict=True))
            write_record(tmp_path / f'{loss}{seed}.json', made)
    runs, problems = load_runs([tmp_path])
    assert problems == []
    return compare(runs)[0]


def test_a_gain_is_told_apart_from_the_line(tmp_path):
    one = comparison(tmp_path)
    ce, recall = answer(one, [one]).blocks[0].rows
    assert [cell.text for cell in ce] == [
        'CE', '40.1 (39.9 to 40.3)', '-', '60.1 (59.9 to 60.3)', '-', '50.1 (49.9 to 50.3)', '-',
    ]  # fmt: skip
    assert [cell.text.split(' ')[-1] for cell in recall[2::2]] == ['above', 'settled', 'below']
    assert [cell.sort for cell in recall[2::2]] == pytest.approx([15, 0, -5])


def test_a_loss_without_it_is_left_out_and_so_is_a_page_without_its_baseline(tmp_path):
    one = comparison(tmp_path / 'a', without=('Recall',))
    assert len(answer(one, [one]).blocks[0].rows) == 1
    for number, options in enumerate([dict(without=('CE',)), dict(losses=('Recall',))]):
        one = comparison(tmp_path / f'b{number}', **options)
        assert answer(one, [one]) is None
