"""The verdict: whether anything was learnt, then what is free, then the losses and their bases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmseg_recall.comparison.identity import Identity
from mmseg_recall.report.bases import base_of, bases, to_paste
from mmseg_recall.report.load import Run
from mmseg_recall.report.questions.differences import answer as differences
from mmseg_recall.report.questions.imbalance import accuracy_against_iou, diagnose
from mmseg_recall.report.questions.post_hoc import post_hoc_curve, post_hoc_table
from mmseg_recall.report.summary import Comparison, Loss, compare

from .page import of_kind
from .records import record

SHARE = np.array([0.7, 0.2, 0.06, 0.03, 0.01])
CLASSES = ('road', 'tree', 'car', 'bicycle', 'pole')
LEARNT = (98.0, 95.0, 60.0, 20.0, 10.0)
BETTER = (96.0, 93.0, 80.0, 60.0, 50.0)
ROAD_ONLY = (100.0, 0.0, 0.0, 0.0, 0.0)


def run(
    label: str,
    seed: int,
    accuracy: tuple[float, ...],
    classes: tuple[str, ...] = CLASSES,
    share: np.ndarray = SHARE,
    taus: dict[float, tuple[float, float]] | None = None,
    components: list[dict] | None = None,
    iou: float | None = None,
) -> Run:
    """One of these accuracies; ``taus`` are what they add to mean accuracy and mean IoU."""
    values = np.array(accuracy)
    metrics = {
        'aAcc': float(values @ share / share.sum()),
        'mAcc': float(values.mean()),
        'mIoU': float(values.mean() * 0.8) if iou is None else iou,
    }
    for tau, (more_accuracy, more_iou) in (taus or {}).items():
        metrics[f'tau={tau:g}/mAcc'] = metrics['mAcc'] + more_accuracy
        metrics[f'tau={tau:g}/mIoU'] = metrics['mIoU'] + more_iou
        metrics[f'tau={tau:g}/aAcc'] = metrics['aAcc'] - tau
    setup = {**record('CE', 0)['setup'], 'loss': label}
    loss = {} if components is None else {'imbalance_loss': components}
    return Run(
        f'{label}{seed}',
        label,
        seed,
        setup,
        classes,
        {name: values for name in ('IoU', 'Acc', 'Precision', 'F1')},
        metrics,
        pixels=share * 1000,
        pixels_of='training',
        config=Identity({}, loss),
    )


def one(*runs: Run) -> Comparison:
    (comparison,) = compare(list(runs))
    return comparison


def seeds(label: str, accuracy: tuple[float, ...], number: int = 3, **options) -> list[Run]:
    """Seeds that differ by a tenth of a point."""
    return [
        run(label, seed, (accuracy[0] - seed / 10, *accuracy[1:]), **options)
        for seed in range(number)
    ]


def text_of(comparison: Comparison) -> str:
    return ' '.join(diagnose(comparison).sentences)


@pytest.mark.parametrize(
    ('baseline', 'other'),
    [
        (ROAD_ONLY, ROAD_ONLY),
        (ROAD_ONLY, (99.9, 1.0, 0.4, 0.0, 0.2)),
        ((0.0, 100.0, 0.0, 0.0, 0.0), ROAD_ONLY),
        ((97.0, 60.0, 0.0, 0.0, 0.0), ROAD_ONLY),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 100.0)),
    ],
    ids=['one class', 'and a few pixels', 'another class each', 'two classes', 'wrong everywhere'],
)
def test_of_models_that_find_a_class_or_two_it_says_that_nothing_was_learnt(baseline, other):
    verdict = diagnose(one(*seeds('CE', baseline), *seeds('Recall', other)))
    assert verdict.verdict == 'Nothing was learnt'
    text = ' '.join(verdict.sentences)
    assert 'train longer' in text and 'Try' not in text and '_base_' not in text


def test_of_two_classes_the_background_alone_is_nothing():
    nothing = one(*seeds('CE', (100.0, 0.0), **CRACKS), *seeds('Dice', (99.9, 0.5), **CRACKS))
    assert diagnose(nothing).verdict == 'Nothing was learnt'
    found = one(*seeds('CE', (100.0, 0.0), **CRACKS), *seeds('Dice', (99.0, 60.0), **CRACKS))
    assert diagnose(found).verdict.startswith('Yes')
    assert diagnose(found).sentences[0] == (
        'Finds a class or two only, and is in the means: CE with seed 0, CE with seed 1, CE with '
        'seed 2.'
    )


def test_nothing_is_learnt_without_a_baseline_too():
    verdict = diagnose(one(*seeds('Dice', ROAD_ONLY)))
    assert verdict.verdict == 'Nothing was learnt' and 'at most 1 of 5' in verdict.sentences[0]


def test_a_seed_that_learnt_nothing_is_named():
    runs = [*seeds('CE', LEARNT), *seeds('Recall', BETTER, 2), run('Recall', 2, ROAD_ONLY)]
    verdict = diagnose(one(*runs))
    assert verdict.verdict.startswith('Yes')
    assert verdict.sentences[0].endswith('in the means: Recall with seed 2.')
    assert 'in the means' not in text_of(one(*seeds('CE', LEARNT)))


def test_logits_that_know_more_than_their_argmax_were_learnt():
    runs = [run('CE', seed, ROAD_ONLY, taus={0.5: (40, 30)}) for seed in (0, 1)]
    text = text_of(one(*runs))
    assert 'Free, without training: cross-entropy with logits adjusted with tau = 0.5' in text


@pytest.mark.parametrize(
    ('baseline', 'verdict'),
    [
        (LEARNT, 'Yes'),
        ((99.0, 97.0, 92.0, 91.0, 90.0), 'Too easy'),
        ((80.0, 70.0, 60.0, 20.0, 10.0), 'Too difficult'),
        ((90.0, 88.0, 85.0, 84.0, 80.0), 'No'),
        ((96.0, 20.0, 10.0, 90.0, 95.0), 'Difficult classes'),
    ],
)
def test_what_is_free_is_in_every_verdict_with_its_gain(baseline, verdict):
    share = np.array([0.9, 0.04, 0.03, 0.02, 0.01]) if verdict.startswith('Diff') else SHARE
    taus = {0.1: (2.0, 1.0), 0.25: (8.0, 6.5), 0.5: (9.0, 3.0)}
    runs = seeds('CE', baseline, share=share, taus=taus)
    found = diagnose(one(*runs, *seeds('Recall', BETTER, share=share)))
    assert found.verdict.startswith(verdict)
    text = ' '.join(found.sentences)
    assert 'tau = 0.25, mean accuracy +8.0 (+8.0 to +8.0), mIoU +6.5 (+6.5 to +6.5)' in text
    assert '--cfg-options logit_adjustment.tau=0.25.' in text and 'that was tested' not in text


@pytest.mark.parametrize(
    ('taus', 'words'),
    [
        ({0.1: (1, 5), 0.5: (2, 4)}, 'the smallest that was tested: a smaller one may gain more'),
        ({0.1: (1, 1), 0.5: (2, 4)}, 'the largest that was tested: a larger one may gain more'),
        ({0.5: (2, 4)}, 'the only one that was tested'),
        ({0.1: (1, 0), 0.5: (2, -4)}, 'tau of 0.1, 0.5 gains cross-entropy no mean IoU'),
    ],
)
def test_a_best_value_at_the_end_of_the_grid_is_said_to_be_one(taus, words):
    assert words in text_of(one(*seeds('CE', LEARNT, taus=taus)))


def test_seeds_of_different_grids_have_in_common_what_counts():
    runs = [run('CE', 0, LEARNT, taus={0.1: (1, 9), 0.5: (2, 4)})]
    runs.append(run('CE', 1, LEARNT, taus={0.5: (2, 4)}))
    assert 'tau = 0.5, mean accuracy +2.0' in text_of(one(*runs))


def test_offsets_of_the_classes_are_named_where_they_were_fitted():
    fitted = dict(mIoU_as_is=40.0, mIoU_with_offsets=47.5)
    runs = [replace(r, metrics={**r.metrics, **fitted}) for r in seeds('CE', LEARNT)]
    text = text_of(one(*runs))
    assert 'fitted on the validation images, mIoU +7.5 (+7.5 to +7.5).' in text
    assert 'an offset for each class' not in text_of(one(*seeds('CE', LEARNT)))


def test_what_is_free_and_was_not_tested_is_named():
    text = text_of(one(*seeds('CE', LEARNT), *seeds('Recall', BETTER)))
    assert 'not tested here: adjusted logits' in text and 'tools/class_statistics.py' in text


def test_the_best_loss_is_weighed_against_what_is_free():
    # The gain of a loss over cross-entropy is large, over the free option it is little.
    runs = [
        *seeds('CE', LEARNT, taus={0.25: (20.0, 17.1), 0.5: (21.0, 10.0)}, iou=30.0),
        *seeds('Recall', BETTER, iou=48.3),
    ]
    text = text_of(one(*runs))
    assert text.index('Free, without training') < text.index('Try Recall first')
    assert 'mIoU +18.3 (+18.3 to +18.3)' in text
    assert 'Against what is free: mean accuracy -0.8 (-0.8 to -0.8), mIoU +1.2' in text


def test_one_seed_and_a_gain_within_the_spread_advise_nothing():
    text = text_of(one(run('CE', 0, LEARNT), run('Recall', 0, BETTER)))
    assert 'tell no loss from cross-entropy' in text and 'Try' not in text
    runs = [run('CE', s, (98, 95, 60 + 10 * s, 20, 10)) for s in (0, 1, 2)]
    runs += [run('Recall', s, (98, 95, 88 - 10 * s, 20, 10)) for s in (0, 1, 2)]
    text = text_of(one(*runs))
    assert 'tell no loss from cross-entropy' in text and 'To settle it: ' in text
    assert 'Try' not in text


ONE_CHANNEL = {'model.decode_head.out_channels': 1, 'model.decode_head.threshold': 0.3}
CRACKS = dict(classes=('background', 'crack'), share=np.array([0.95, 0.05]))


def one_channel(seed: int, grid: dict[float, float]) -> Run:
    """Of a sigmoid head; ``grid`` is what each threshold adds to mean IoU."""
    found = run('BinaryCE', seed, (99.0 - seed / 10, 40.0), **CRACKS)
    scored = {
        f'threshold={t:g}/{name}': found.metrics[name] + more
        for t, more in grid.items()
        for name in ('mAcc', 'mIoU', 'aAcc')
    }
    config = Identity({}, ONE_CHANNEL)
    return replace(found, metrics={**found.metrics, **scored}, config=config)


@pytest.mark.parametrize(
    ('grid', 'words'),
    [
        ({0.1: 4.0, 0.2: 6.0, 0.3: 0.0, 0.5: -2.0}, 'a threshold = 0.2, mean accuracy +6.0 (+6.0'),
        ({0.1: 7.0, 0.2: 6.0}, 'the smallest that was tested'),
        ({0.3: 0.0, 0.5: 1.0, 0.7: 4.0}, 'the largest that was tested'),
        ({0.1: -1.0, 0.5: -2.0}, 'a threshold of 0.1, 0.5 gains cross-entropy no mean IoU'),
        ({}, 'another threshold than 0.3'),
    ],
)
def test_of_one_channel_the_threshold_is_what_is_free(grid, words):
    runs = [one_channel(seed, grid) for seed in (0, 1, 2)]
    comparison = one(*runs, *seeds('Recall', (98.0, 80.0), **CRACKS))
    assert [loss.label for loss in comparison.losses] == ['BinaryCE', 'Recall']
    verdict = diagnose(comparison)
    assert verdict.verdict.startswith('Yes')
    text = ' '.join(verdict.sentences)
    assert words in text and 'class_statistics' not in text and 'tau' not in text
    assert 'Try Recall first' in text
    gains = any(more > 0 for more in grid.values())
    assert ('model.decode_head.threshold=' in text) == (gains or not grid)


def test_thresholds_are_a_table_and_a_line():
    grid = {0.1: 4.0, 0.2: 6.0, 0.3: 0.0, 0.5: -2.0}
    runs = [one_channel(seed, grid) for seed in (0, 1, 2)]
    comparison = one(*runs, *(run('Recall', seed, (98.0, 45.0), **CRACKS) for seed in (0, 1, 2)))
    assert list(post_hoc_curve(comparison)) == [0.5, 0.3, 0.2, 0.1]
    table = post_hoc_table(comparison)
    assert (table.title, table.columns[0]) == ('Other thresholds of BinaryCE', 'threshold')
    assert [row[0].text for row in table.rows] == ['0.5', '0.3', '0.2', '0.1']
    means = [row[2].sort for row in table.rows]
    assert means == pytest.approx([means[1] + grid[float(row[0].text)] for row in table.rows])
    assert '0.3 is BinaryCE as it is' in table.note
    scatter = accuracy_against_iou(comparison)
    assert 'BinaryCE, other thresholds' in scatter.svg and 'threshold = 0.5, 0.3' in scatter.caption


def test_softmax_stays_the_baseline_beside_one_channel():
    comparison = one(one_channel(0, {}), run('CE', 0, (99.0, 30.0), **CRACKS))
    assert comparison.baseline.label == 'CE'


def loss(label: str, components: list[dict] | None = None) -> Loss:
    return Loss(label, (run(label, 0, LEARNT, components=components),))


@pytest.mark.parametrize(
    ('label', 'base'),
    [
        ('InverseFrequency exponent=0.5 schedule=linear + LovaszSoftmax', 'recommended.py'),
        ('InverseFrequency exponent=0.5 + LovaszSoftmax', 'inverse_frequency_sqrt_lovasz.py'),
        ('Recall + LovaszSoftmax', 'recall_lovasz.py'),
        ('Recall', 'recall.py'),
        ('Recall (test_cfg.mode=slide)', 'recall.py'),
        ('SoftTversky alpha=0.3 beta=0.7', 'tversky.py'),
        ('SoftTversky alpha=0.5 beta=0.5', ''),
        ('MyOwn', ''),
    ],
)
def test_the_base_of_a_loss(label, base):
    assert base_of(loss(label)) == base


@pytest.mark.parametrize(
    ('components', 'base'),
    [
        ([dict(type='RecallLoss')], 'recall.py'),
        ([dict(type='InverseFrequencyLoss', class_counts=[9, 1])], 'inverse_frequency.py'),
        ([dict(type='RecallLoss'), dict(type='LovaszSoftmaxLoss')], 'recall_lovasz.py'),
        # The label does not say what a weight is.
        ([dict(type='RecallLoss'), dict(type='LovaszSoftmaxLoss', loss_weight=0.1)], ''),
        ([dict(type='RecallLoss', momentum=0.9)], ''),
    ],
)
def test_what_was_trained_decides_on_the_base_and_the_lines_train_it(tmp_path, components, base):
    trained = loss('Recall + LovaszSoftmax', components)
    assert base_of(trained) == base
    lines = to_paste(trained).replace(', which tools/class_statistics.py writes', '')
    Path(tmp_path, 'your_config.py').write_text('imbalance_loss = None\n')
    Path(tmp_path, 'mine.py').write_text(
        lines.replace('; ', '\n').replace("'your_config.py', ", '') + '\n'
    )
    given = Config.fromfile(tmp_path / 'mine.py').imbalance_loss
    given = given if isinstance(given, list) else [given]
    assert all(one.pop('_scope_', 'mmseg') == 'mmseg' for one in given)
    assert given == [{k: v for k, v in c.items() if k != 'class_counts'} for c in components]
    assert base_of(loss('Recall', given)) == base


@pytest.mark.parametrize('name', bases())
def test_every_base_is_found_by_what_it_trains(name):
    components = bases()[name]
    twins = [other for other, losses in bases().items() if losses == components]
    assert base_of(loss('any', components)) == twins[0]
    assert f"'mmseg_recall::_base_/losses/{twins[0]}'" in to_paste(loss('any', components))


def test_the_verdict_and_the_table_name_the_bases():
    label = 'InverseFrequency exponent=0.5 schedule=linear + LovaszSoftmax'
    comparison = one(*seeds('CE', LEARNT), *seeds(label, BETTER), *seeds('MyOwn', BETTER))
    text = text_of(comparison)
    assert "_base_ = ['your_config.py', 'mmseg_recall::_base_/losses/recommended.py']" in text
    assert "class_counts = 'class_counts.json', which tools/class_statistics.py writes" in text
    (table,) = of_kind(differences(comparison, [comparison]), 'table')
    assert [row[-1].text for row in table.rows] == ['recommended.py', '-']
