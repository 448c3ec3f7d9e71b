"""What is found in records and in work directories that the plugin has never seen."""

import json
import math

import numpy as np
import pytest

from mmseg_recall.report.load import load_runs

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
    yield path, "lacking.json: incomplete record, 'areas' is missing"

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
