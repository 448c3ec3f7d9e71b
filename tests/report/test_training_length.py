"""What the report says of one setup that was trained with several schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmseg_recall.comparison.record import write_record
from mmseg_recall.report import render_report
from mmseg_recall.report.load import Run
from mmseg_recall.report.questions.training_length import answer
from mmseg_recall.report.summary import Comparison, compare

from .page import of_kind, verdict_of
from .records import record

# mIoU, mAcc and aAcc: CE overtakes Recall in mIoU, and Lovasz was trained once only.
TRAINED = {
    100: {'CE': (40, 50, 88), 'Recall': (50, 60, 85), 'LovaszSoftmax': (55, 66, 84)},
    400: {'CE': (60, 62, 89), 'Recall': (58, 70, 87)},
}


def comparisons(
    trained: dict = TRAINED, family: str | None = 'one', seeds: int = 2
) -> list[Comparison]:
    """Seeds differ by 1 point."""
    runs = []
    for iterations, means in trained.items():
        setup = {
            **record('CE', 0)['setup'],
            'key': f'{iterations}',
            'iterations': iterations,
            'schedule': f'{iterations} iterations, batch 8',
        }
        if family is not None:
            setup['family'] = family
        for label, values in means.items():
            for seed in range(seeds):
                iou, accuracy, overall = (v + seed for v in values)
                metrics = {'mIoU': iou, 'mAcc': accuracy, 'aAcc': overall}
                runs.append(Run(f'{label}{seed}', label, seed, setup, (), {}, metrics))
    return compare(runs)


def test_the_losses_that_every_length_has_are_compared() -> None:
    largest, other = comparisons()
    (table,) = of_kind(answer(largest, [largest, other]), 'table')
    assert [[cell.text for cell in row] for row in table.rows] == [
        ['CE', '100', '2', '50.5 (44.1 to 56.9)', '40.5 (34.1 to 46.9)', '88.5 (82.1 to 94.9)'],
        ['CE', '400', '2', '62.5 (56.1 to 68.9)', '60.5 (54.1 to 66.9)', '89.5 (83.1 to 95.9)'],
        ['Recall', '100', '2', '60.5 (54.1 to 66.9)', '50.5 (44.1 to 56.9)', '85.5 (79.1 to 91.9)'],
        ['Recall', '400', '2', '70.5 (64.1 to 76.9)', '58.5 (52.1 to 64.9)', '87.5 (81.1 to 93.9)'],
    ]


def test_a_change_of_order_is_said_with_its_metric() -> None:
    largest, other = comparisons()
    found = verdict_of(answer(largest, [largest, other]))
    assert found.verdict == 'The order changes with the length of the training, in mean IoU'
    assert found.sentences[:4] == (
        'By mean IoU, after iterations: 100: Recall > CE; 400: CE > Recall.',
        'The best loss against CE: +10.0 (+10.0 to +10.0) after 100 (Recall), -2.0 (-2.0 to -2.0) '
        'after 400 (Recall).',
        'By mean accuracy, after iterations: 100: Recall > CE; 400: Recall > CE.',
        'The best loss against CE: +10.0 (+10.0 to +10.0) after 100 (Recall), +8.0 (+8.0 to +8.0) '
        'after 400 (Recall).',
    )


def test_a_change_of_order_that_chance_explains_is_not_settled() -> None:
    runs = [
        replace(run, metrics={**run.metrics, 'mIoU': run.metrics['mIoU'] + 6 * (run.seed or 0)})
        if run.loss == 'CE'
        else run
        for one in comparisons()
        for run in one.runs
    ]
    largest, other = compare(runs)
    found = verdict_of(answer(largest, [largest, other]))
    assert found.verdict.startswith('Not settled: the order that is seen changes in mean IoU')


def test_the_same_order_is_said_too() -> None:
    trained = {100: TRAINED[100], 400: {'CE': (40, 50, 88), 'Recall': (58, 70, 87)}}
    largest, other = comparisons(trained)
    found = verdict_of(answer(largest, [largest, other]))
    assert found.verdict == 'The order that is seen is the same at every length'


def test_it_is_said_once_and_of_one_family_only() -> None:
    largest, other = comparisons()
    assert answer(other, [largest, other]) is None
    assert answer(largest, [largest]) is None
    unknown = comparisons(family=None)
    assert answer(unknown[0], unknown) is None


def test_the_page_has_the_answer_the_table_and_the_figure(tmp_path: Path) -> None:
    for iterations in (2000, 4000):
        for loss in ('CE', 'Recall'):
            one = record(loss, 0, panel=False)
            one['name'] += f'_{iterations}'
            one['setup'] |= {
                'family': 'one',
                'key': f'{iterations}',
                'iterations': iterations,
                'schedule': f'{iterations} iterations, batch 8',
            }
            write_record(tmp_path / 'runs' / f'{one["name"]}.json', one)
    assert render_report([tmp_path / 'runs'], tmp_path / 'out', '2026-01-01') == []
    for name in ('report.html', 'README.md'):
        text = (tmp_path / 'out' / name).read_text()
        assert text.count('Does longer training change the answer?') == 1
        assert text.count('Mean IoU from the shortest to the longest: CE ') == 1
    assert (tmp_path / 'out' / 'figures' / 'lengths-1.svg').exists()
