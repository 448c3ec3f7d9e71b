"""What is found in records and in work directories that the plugin has never seen."""

import json
import math
import os

import numpy as np
import pytest

from mmseg_recall.comparison.record import write_record
from mmseg_recall.out_folder import Manifest, write_manifest
from mmseg_recall.report.load import load_runs
from mmseg_recall.report.summary import compare

from .records import PIXELS, record, write_records
from .work_dirs import CONFIG, work_dir


def test_a_work_directory_of_stock_mmseg_is_a_run(tmp_path):
    (run,), problems = load_runs([work_dir(tmp_path / 'fcn')])
    assert problems == []
    assert (run.loss, run.seed, run.evaluated) == ('CE', 0, 'last validation (iteration 200)')
    assert run.metrics == {'aAcc': 95.0, 'mIoU': 60.0, 'mAcc': 70.0}
    assert run.classes == ('background', 'bird', 'bottle', 'boat')
    np.testing.assert_equal(run.per_class['IoU'], [95, 40, math.nan, 0])
    # bird: 50 of 100 found and IoU 40, so 50 / 0.4 = 125 in the union: 75 predicted.
    np.testing.assert_allclose(run.per_class['Precision'][1], 100 * 50 / 75)
    np.testing.assert_allclose(run.per_class['F1'][1], 100 * 2 * 50 / (75 + 100))
    assert (run.seconds, run.memory, run.memory_of) == (pytest.approx(0.6), 5004, 'GPU')
    assert run.setup['model'] == 'FCN ResNetV1c-50'
    assert run.pixels is None and run.curves is None


def test_a_test_counts_more_than_a_validation(tmp_path):
    (run,), _ = load_runs([work_dir(tmp_path / 'fcn', tested=True)])
    assert run.evaluated == 'test'
    assert run.metrics == {'aAcc': 90.0, 'mIoU': 55.0, 'mAcc': 65.0}
    assert run.per_class['IoU'][0] == 90


def test_runs_are_found_at_any_depth_and_a_record_hides_its_work_directory(tmp_path):
    write_records(tmp_path / 'ours', losses=('CE',), seeds=(0,))
    work_dir(tmp_path / 'ours' / 'model_ce_seed0')
    work_dir(tmp_path / 'theirs' / 'a')
    work_dir(tmp_path / 'theirs' / 'b', loss='DiceLoss')
    runs, problems = load_runs([tmp_path])
    assert problems == []
    assert [run.name for run in runs] == ['a', 'b', 'model_ce_seed0']
    assert runs[0].setup['key'] == runs[1].setup['key']


def test_metrics_of_a_record_come_from_its_areas(tmp_path):
    write_records(tmp_path, losses=('Recall',), seeds=(0,))
    (run,), _ = load_runs([tmp_path])
    areas = record('Recall', 0)['areas']
    hit, predicted, label = (np.array(areas[k]) for k in ('intersect', 'predicted', 'label'))
    np.testing.assert_allclose(run.per_class['Acc'], 100 * hit / label)
    np.testing.assert_allclose(run.per_class['Precision'], 100 * hit / predicted)
    np.testing.assert_allclose(run.per_class['IoU'], 100 * hit / (predicted + label - hit))
    np.testing.assert_array_equal(run.pixels, 4 * PIXELS)


def trained(folder, name='fcn', done=120, **kwargs):
    """A work directory of a run of 200 iterations that was killed after ``done``."""
    run = work_dir(folder / name, **kwargs)
    path = run / '20240101_000000' / 'vis_data' / 'scalars.json'
    lines = [
        {'loss': 1.0, 'step': done // 2},
        {'mIoU': 20.0, 'mAcc': 30.0, 'aAcc': 80.0, 'step': done // 2},
        {'loss': 0.9, 'step': done},
    ]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return run


def epochs(folder, done=3, of=4):
    """Of an epoch-based run, whose checkpoints count iterations: more than it has epochs."""
    run = trained(folder, done=6)
    config = run / 'fcn_r50_voc.py'
    text = config.read_text().replace(
        "type='IterBasedTrainLoop', max_iters=200", f'max_epochs={of}'
    )
    config.write_text(text)
    lines = [{'loss': 1.0, 'epoch': e + 1, 'step': 2 * e + 2} for e in range(done)]
    lines.append({'mIoU': 20.0, 'step': 6})
    path = run / '20240101_000000' / 'vis_data' / 'scalars.json'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (run / 'iter_6.pth').touch()
    return run


UNFINISHED = {
    'killed': (trained, '120 of 200 iterations'),
    'killed after a test of an early checkpoint': (
        lambda folder: trained(folder, tested=True),
        '120 of 200 iterations',
    ),
    'one step short': (lambda folder: trained(folder, done=199), '199 of 200 iterations'),
    'of epochs, with checkpoints by iteration': (epochs, '2 of 4 epochs'),
    'of epochs, in its last': (lambda folder: epochs(folder, done=4), '3 of 4 epochs'),
}


@pytest.mark.parametrize('kind', UNFINISHED)
def test_a_run_that_has_not_ended_is_left_out_by_name(tmp_path, kind):
    make, message = UNFINISHED[kind]
    run = make(tmp_path)
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and str(run) in problem and message in problem


@pytest.mark.parametrize('evidence', ['iter_200.pth', 'last_checkpoint', 'a validation'])
def test_a_run_has_ended_where_its_last_iteration_was_not_logged(tmp_path, evidence):
    run = trained(tmp_path, done=150)
    if evidence == 'iter_200.pth':
        (run / evidence).touch()
    elif evidence == 'last_checkpoint':
        (run / evidence).write_text('/somewhere/else/iter_200.pth')
    else:
        with (run / '20240101_000000' / 'vis_data' / 'scalars.json').open('a') as file:
            file.write('{"mIoU": 60.0, "step": 200}\n')
    ((one,), problems) = load_runs([tmp_path])
    assert problems == [] and one.name == 'fcn'


@pytest.mark.parametrize('hooks', ['custom_hooks = [{}]', 'default_hooks = dict(stop={})'])
def test_a_run_that_stopped_early_counts_when_it_was_tested(tmp_path, hooks):
    for tested in (False, True):
        run = trained(tmp_path, name=str(tested), tested=tested)
        config = run / 'fcn_r50_voc.py'
        stop = hooks.format("dict(type='EarlyStoppingHook')")
        config.write_text(f'{config.read_text()}{stop}\n')
    ((run,), (problem,)) = load_runs([tmp_path])
    assert run.name == 'True' and 'False' in problem


def test_an_epoch_based_run_has_ended_with_the_checkpoint_of_its_last_epoch(tmp_path):
    run = epochs(tmp_path, done=4)
    (run / 'last_checkpoint').write_text('epoch_4.pth')
    assert load_runs([tmp_path])[1] == []


@pytest.mark.parametrize('files', [(), ('fcn.py',)])
def test_a_comparison_that_still_runs_has_no_run_without_a_record(tmp_path, files):
    write_manifest(tmp_path, Manifest('benchmark'))
    work_dir(tmp_path / 'fcn', tested=True)  # trained and tested, and being recorded
    for name in files:
        (tmp_path / name).touch()
    runs, problems = load_runs([tmp_path])
    if files:
        assert runs == [] and problems == [
            f'{tmp_path / "fcn"}: this run has not ended; call tools/benchmark.py again'
        ]
    else:
        assert [run.name for run in runs] == ['fcn']


DIVERGED = {
    'at its end': ([1.0, math.nan, math.nan, math.nan], 100),
    'infinite': ([1.0, 1.0, 1.0, math.inf], 200),
    'again': ([math.nan, 1.0, math.nan, math.nan], 150),
    'from the start': ([math.nan] * 4, 50),
}


@pytest.mark.parametrize('kind', DIVERGED)
def test_a_run_that_diverged_is_left_out_with_its_iteration(tmp_path, kind):
    losses, since = DIVERGED[kind]
    run = work_dir(tmp_path / 'fcn', tested=True)
    lines = [{'loss': loss, 'step': 50 * i + 50} for i, loss in enumerate(losses)]
    path = run / '20240101_000000' / 'vis_data' / 'scalars.json'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and problem == (
        f'{run}: diverged, its loss is not finite from iteration {since} on'
    )


def test_a_loss_that_was_not_finite_once_has_not_diverged(tmp_path):
    run = work_dir(tmp_path / 'fcn')
    path = run / '20240101_000000' / 'vis_data' / 'scalars.json'
    path.write_text(path.read_text().replace('{"loss": 1.0', '{"loss": NaN', 1))
    assert load_runs([tmp_path])[1] == []


def test_a_run_in_two_folders_is_one_run(tmp_path):
    for folder in ('a', 'b/c', 'd'):
        write_records(tmp_path / folder, losses=('CE', 'Recall'), seeds=(0,))
    work_dir(tmp_path / 'e' / 'fcn')
    work_dir(tmp_path / 'f' / 'renamed')
    runs, problems = load_runs([tmp_path])
    assert problems == []
    assert [run.name for run in runs] == ['fcn', 'model_ce_seed0', 'model_recall_seed0']


def other_areas(one):
    areas = one['areas']
    areas['intersect'][0] -= 1000
    hit, predicted, label = (np.array(areas[k]) for k in ('intersect', 'predicted', 'label'))
    means = {
        'aAcc': hit.sum() / label.sum(),
        'mAcc': (hit / label).mean(),
        'mIoU': (hit / (predicted + label - hit)).mean(),
    }
    one['metrics'].update({name: 100 * value for name, value in means.items()})


@pytest.mark.parametrize('folders', [('a', 'b'), ('a', 'a'), ('a', 'b', 'c')])
def test_different_results_of_one_seed_are_none(tmp_path, folders):
    write_records(tmp_path / 'a', losses=('CE', 'Recall'), seeds=(0, 1))
    paths = [tmp_path / 'a' / 'model_recall_seed0.json']
    for i, folder in enumerate(folders[1:]):
        one = record('Recall', 0)
        other_areas(one)
        paths.append(tmp_path / folder / f'again_{i}.json')
        write_record(paths[-1], one)
    runs, (problem,) = load_runs([tmp_path])
    assert len(runs) == 3 and 'Recall with seed 0; none is used' in problem
    named = [path for path in paths if str(path) in problem]
    assert len(named) == len(paths)


def test_different_results_of_a_work_directory_and_its_copy_are_none(tmp_path):
    work_dir(tmp_path / 'a')
    work_dir(tmp_path / 'b', tested=True)
    assert [run.name for run in load_runs([tmp_path])[0]] == ['a', 'b']  # of other images
    work_dir(tmp_path / 'c', tested=True)
    path = tmp_path / 'c' / '20240101_010000' / '20240101_010000.json'
    path.write_text(path.read_text().replace('55.0', '56.0'))
    runs, (problem,) = load_runs([tmp_path])
    assert [run.name for run in runs] == ['a']
    assert str(tmp_path / 'b') in problem and str(tmp_path / 'c') in problem


def hidden(option):
    """Records of two seeds of one label whose losses differ in an option that it leaves out."""

    def change(one):
        if one['seed'] == 1:
            one['config'] = f"loss_decode = dict(type='Recall', {option})\n"
            one['setup']['loss_key'] = option

    return change


def counted_again(one):
    if one['seed']:
        one['training_pixels'][0] += 1


def counts_unknown(one):
    if one['seed']:
        one['training_pixels'] = None


def rule(one):
    one['checkpoint']['rule'] = 'best' if one['seed'] else 'last'


def reordered(one):
    if one['seed']:
        one['classes'].reverse()


def other_labels(one):
    if one['seed']:
        one['areas']['label'][0] += 100_000
        one['areas']['predicted'][0] += 100_000
        other_areas(one)


@pytest.mark.parametrize(
    ('change', 'rows', 'comparisons'),
    [
        (lambda one: None, 1, 1),
        (hidden('loss_weight=0.5'), 2, 1),
        (hidden('avg_non_ignore=True'), 2, 1),
        (hidden('class_counts=[1, 2]'), 2, 1),
        (counted_again, 2, 1),
        (counts_unknown, 1, 1),
        (rule, 1, 2),
        (reordered, 1, 2),
        (other_labels, 1, 2),
    ],
    ids=[
        'seeds',
        'weight',
        'average',
        'counts',
        'counted again',
        'not counted',
        'rule',
        'order',
        'labels',
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    tmp_path, change, rows, comparisons
):
    for seed in (0, 1):
        one = record('Recall', seed)
        one['setup']['loss_key'] = ''
        change(one)
        write_record(tmp_path / f'{seed}.json', one)
    runs, problems = load_runs([tmp_path])
    assert problems == []
    compared = compare(runs)
    assert len(compared) == comparisons
    assert len({one.title for one in compared}) == comparisons
    assert [len(one.losses) for one in compared] == [rows] * comparisons
    assert len({run.loss for run in runs}) == rows


def test_comparisons_that_differ_in_a_learning_rate_are_told_apart(tmp_path):
    for lr in ('0.01', '0.02'):
        one = record('CE', 0)
        one['config'] = f'optim_wrapper = dict(optimizer=dict(lr={lr}))\n'
        one['setup']['key'] = lr
        write_record(tmp_path / f'{lr}.json', one)
    titles = [one.title for one in compare(load_runs([tmp_path])[0])]
    assert [title.rpartition(' (')[2] for title in titles] == [
        'optim_wrapper.optimizer.lr=0.01)',
        'optim_wrapper.optimizer.lr=0.02)',
    ]


@pytest.mark.parametrize('metric', ['aAcc', 'mIoU', 'mAcc'])
def test_a_metric_that_is_not_that_of_the_areas_is_named(tmp_path, metric):
    one = record('CE', 0)
    one['metrics'][metric] += 0.5
    write_record(tmp_path / 'edited.json', one)
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and f'edited.json: the test printed {metric}' in problem


def test_a_metric_that_is_null_follows_from_the_areas(tmp_path):
    one = record('CE', 0)
    known = {name: one['metrics'][name] for name in ('aAcc', 'mIoU', 'mAcc')}
    one['metrics'].update(dict.fromkeys(known), mIoU_I=None)
    write_record(tmp_path / 'a.json', one)
    ((run,), _) = load_runs([tmp_path])
    assert {name: run.metrics[name] for name in known} == pytest.approx(known)
    assert 'mIoU_I' not in run.metrics


@pytest.mark.parametrize('metric', ['mIoU_I', 'mPrecision', 'mIoU_C5'])
def test_a_metric_that_is_null_in_one_seed_is_none_of_the_loss(tmp_path, metric):
    write_records(tmp_path, losses=('CE', 'Recall'), seeds=(0, 1, 2), taus=(0.5,))
    one = record('CE', 1, taus=())
    one['metrics'][metric] = None
    write_record(tmp_path / 'model_ce_seed1.json', one)
    runs, problems = load_runs([tmp_path])
    assert problems == [] and len(runs) == 6
    assert [run.loss for run in runs if metric in run.metrics] == ['Recall'] * 3
    assert all('mIoU' in run.metrics for run in runs)
    assert len([run for run in runs if 'tau=0.5/mIoU' in run.metrics]) == 5


def two_tests(folder, miou=(40.0, 55.0), written=(1, 2)):
    """Tests at 02:55 and, after the clock was put back, at 02:05."""
    run = work_dir(folder / 'fcn')
    for name, value, time in zip(
        ('20241027_025500', '20241027_020500'), miou, written, strict=True
    ):
        (run / name).mkdir()
        path = run / name / f'{name}.json'
        path.write_text(json.dumps({'aAcc': 90.0, 'mIoU': value, 'mAcc': 65.0, 'time': time}))
        os.utime(path, (time, time))
    return run


def test_tests_over_a_change_of_the_clock_are_in_doubt(tmp_path):
    run = two_tests(tmp_path)
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and str(run) in problem
    assert '20241027_025500' in problem and '20241027_020500' in problem


@pytest.mark.parametrize('options', [dict(miou=(55.0, 55.0)), dict(written=(2, 1))])
def test_tests_of_one_order_or_one_result_are_not(tmp_path, options):
    two_tests(tmp_path, **options)
    ((run,), problems) = load_runs([tmp_path])
    assert problems == []
    assert run.metrics['mIoU'] == options.get('miou', (40.0,))[0]


def broken_work_dirs(folder):
    """Folder, and what the report must say of it."""
    empty = folder / 'empty'
    empty.mkdir(parents=True)
    yield empty, 'empty work directory'

    no_config = work_dir(folder / 'no_config')
    (no_config / 'fcn_r50_voc.py').unlink()
    yield no_config, 'no config'

    bad_config = work_dir(folder / 'bad_config')
    (bad_config / 'fcn_r50_voc.py').write_text('model = dict(')
    yield bad_config, 'fcn_r50_voc.py: cannot be read as a config'

    other = work_dir(folder / 'other')
    (other / 'fcn_r50_voc.py').write_text('model = dict(type="Detector")\n')
    yield other, 'its config lacks what a segmentor needs'

    no_result = work_dir(folder / 'no_result')
    scalars = no_result / '20240101_000000' / 'vis_data' / 'scalars.json'
    scalars.write_text(''.join(scalars.read_text().splitlines(keepends=True)[:2]))
    yield no_result, 'no result, neither of a test'

    damaged = work_dir(folder / 'damaged')
    (damaged / '20240101_000000' / 'vis_data' / 'scalars.json').write_bytes(b'\xff\x00 nothing')
    yield damaged, 'no result, neither of a test'

    started = folder / 'started'
    (started / '20240101_000000').mkdir(parents=True)
    (started / 'a.py').write_text(CONFIG.format(loss='CrossEntropyLoss', seed=0))
    yield started, 'no result'


def broken_records(folder):
    folder.mkdir()
    whole = json.dumps(record('CE', 0))
    path = folder / 'half.json'
    path.write_text(whole[: len(whole) // 2])
    yield path, 'half.json: no record, or a damaged one'

    path = folder / 'other.json'
    path.write_text('{"a": 1}')
    yield path, 'other.json: not a run record'

    path = folder / 'lacking.json'
    path.write_text(json.dumps({k: v for k, v in record('CE', 0).items() if k != 'areas'}))
    yield path, "lacking.json: damaged record, 'areas' is missing"

    failed = {**record('CE', 0), 'status': 'failed'}
    failed['failure'] = {'stage': 'training', 'returncode': 1, 'log_tail': 'a\nout of memory\n'}
    path = folder / 'failed.json'
    path.write_text(json.dumps(failed))
    yield path, 'failed.json: this run failed; training ended with status 1: out of memory'


@pytest.mark.parametrize('make', [broken_work_dirs, broken_records])
def test_what_is_missing_is_named_and_the_rest_is_reported(tmp_path, make):
    broken = list(make(tmp_path / 'broken'))
    good = work_dir(tmp_path / 'good')
    runs, problems = load_runs([good, *(path for path, _ in broken)])
    assert [run.name for run in runs] == ['good']
    for (path, message), problem in zip(broken, problems, strict=True):
        assert str(path) in problem
        assert message in problem


def test_a_path_without_runs_is_named(tmp_path):
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'a.txt').write_text('')
    runs, problems = load_runs([tmp_path / 'notes', tmp_path / 'absent'])
    assert runs == []
    assert 'neither a record' in problems[0] and 'does not exist' in problems[1]


def places(node, path=()):
    """Every place in a record, but into the words of a user."""
    yield path
    inner = node.items() if isinstance(node, dict) else []
    if isinstance(node, list):
        inner = list(enumerate(node))[:1]
    for key, value in inner:
        if path[:1] not in [('versions',), ('curves', 'x')]:
            yield from places(value, (*path, key))


WRONG = [None, 'text', -1, [], {}, 2**70, math.nan]


def wrong_records():
    shown = record('Recall', 0)
    bare = {**shown, 'panel': []}  # pictures take time to decode
    for path in list(places(shown))[1:]:
        for value in WRONG:
            one = json.loads(json.dumps(shown if path[0] == 'panel' else bare))
            node = one
            for key in path[:-1]:
                node = node[key]
            if node[path[-1]] != value:
                node[path[-1]] = value
                yield path, value, one


@pytest.mark.slow
def test_a_damaged_record_is_named_and_the_rest_is_reported(tmp_path):
    good = work_dir(tmp_path / 'good')
    path = tmp_path / 'bad.json'
    tried = named = 0
    for where, value, one in wrong_records():
        path.write_text(json.dumps(one))
        runs, problems = load_runs([good, path])
        tried += 1
        if problems:
            named += 1
            assert len(problems) == 1 and str(path) in problems[0], (where, value)
            assert [run.name for run in runs] == ['good']
        else:
            # A value that could be: a number of another size, null where that means unknown.
            assert len(runs) == 2, (where, value)
    assert tried > 300 and named > 0.75 * tried


@pytest.mark.parametrize(
    'content',
    [b'', b'[]', b'null', b'{"format": []}', b'\xff', b'[' * 100_000, b'{"a": NaN}', b'\x80\x04N.'],
    ids=range(8),
)
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    (problem,) = load_runs([tmp_path])[1]
    assert 'a.json' in problem


def test_links_in_a_circle_have_an_end(tmp_path):
    write_records(tmp_path / 'runs', losses=('CE',), seeds=(0,))
    (tmp_path / 'runs' / 'again').symlink_to(tmp_path)
    (tmp_path / 'self.json').symlink_to('self.json')
    (tmp_path / 'runs' / 'there').symlink_to(tmp_path / 'runs' / 'back')
    (tmp_path / 'runs' / 'back').symlink_to(tmp_path / 'runs' / 'there')
    runs, _ = load_runs([tmp_path])
    assert [run.name for run in runs] == ['model_ce_seed0']
