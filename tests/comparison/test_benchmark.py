"""The runner with stand-ins for the stock scripts: what is skipped, resumed, recorded, killed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config

from mmseg_recall.comparison import benchmark
from mmseg_recall.comparison import record as record_module
from mmseg_recall.comparison.describe import describe
from mmseg_recall.comparison.plan import Plan
from mmseg_recall.comparison.record import read_record
from mmseg_recall.report.load import load_runs

ROOT = Path(__file__).parents[2]
CONFIG = """\
model = dict(
    type='EncoderDecoder', decode_head=dict(type='ASPPHead', loss_decode=dict(type={loss!r})))
train_dataloader = dict(batch_size=2)
test_dataloader = dict(dataset=dict(type='CamVidDataset', data_root='data/camvid'))
test_evaluator = dict(type='PerClassIoUMetric')
train_cfg = dict(max_iters=30)
"""


def plan(name: str = 'recall', loss: str = 'RecallLoss', **kwargs) -> Plan:
    values = dict(config_file='a.py', config=CONFIG.format(loss=loss), seed=0, checkpoint='last')
    return Plan(name=name, **{**values, **kwargs})


def use_stand_ins(patch: pytest.MonkeyPatch) -> None:
    script = (
        'import sys; sys.argv.insert(1, {!r}); from tests.comparison import scripts; '
        "{{'train.py': scripts.train, 'test.py': scripts.test}}[sys.argv.pop(1)]()"
    )
    patch.setattr(benchmark, 'SCRIPT', script)
    patch.setattr(benchmark, 'POLL_SECONDS', 0.05)
    patch.setattr(benchmark, 'refuse_what_cannot_start', lambda *args: None)
    patch.setattr(record_module, 'make_panel', lambda *args: [])
    checkpoint = Path(tempfile.mkdtemp()) / 'checkpoint.pth'
    weights = dict(weight=torch.ones(2), mask=torch.tensor([-math.inf]))
    torch.save(dict(state_dict=weights), checkpoint)
    patch.setenv('CHECKPOINT', str(checkpoint))
    patch.setenv('PYTHONPATH', str(ROOT))


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use_stand_ins(monkeypatch)


def attempts(out: Path, name: str = 'recall') -> int:
    return len(list((out / name).glob('2026*_*')))


def test_a_run_is_recorded_whole(tmp_path):
    assert benchmark.run_all([plan()], tmp_path) == {}
    record = read_record(tmp_path / 'recall.json')
    assert record['status'] == 'complete'
    assert record['config'] == plan().config == (tmp_path / 'recall.py').read_text()
    assert record['setup']['loss'] == 'Recall'
    assert record['classes'] == ['road', 'pole']
    assert record['areas'] == {
        'intersect': [85, 15],
        'predicted': [170, 30],
        'label': [170, 30],
    }
    assert record['metrics'] == {
        'aAcc': 50.0,
        'mIoU': 33.33,
        'mAcc': 50.0,
        'IoU/none': None,
        'tests': 0,
    }
    assert record['seconds_per_iteration'] == 0.5
    assert record['memory_mib']['process'] > 1
    assert record['checkpoint'] == {'rule': 'last', 'step': 30}
    assert record['curves']['weight']['pole'] == [step / 100 for step in range(1, 31)]
    assert record['versions']['torch'] and record['device']


@pytest.mark.parametrize(
    ('added', 'drawn'),
    [
        ('class_counts = [9, 1]', True),
        ("class_counts = 'counts.json'", True),
        ("class_counts = 'nowhere.json'", False),
        ('class_counts = [9, 0]', False),
        ('class_counts = [9, 1, 1]', False),
        ('class_counts = [9, 1]\nlogit_adjustment = dict(tau=1.0)', False),
        ('', False),
    ],
)
def test_the_curve_is_tested_where_the_counts_are_known(tmp_path, monkeypatch, added, drawn):
    monkeypatch.chdir(tmp_path)
    Path('counts.json').write_text('{"pixels": [9, 1]}')
    config = CONFIG.format(loss='RecallLoss').replace("'ASPPHead'", "'ASPPHead', num_classes=2")
    config += f'{added}\n'
    assert benchmark.run_all([plan(config=config)], tmp_path / 'out') == {}
    metrics = read_record(tmp_path / 'out' / 'recall.json')['metrics']
    assert ('tau=0.5/mIoU' in metrics) == drawn


@pytest.mark.parametrize(
    ('head', 'found'),
    [
        (dict(num_classes=2), {'class_counts': [9, 1]}),
        (dict(num_classes=2, out_channels=2), {'class_counts': [9, 1]}),
        (dict(num_classes=2, out_channels=1), {'thresholds': benchmark.THRESHOLDS}),
        (dict(num_classes=3), {}),
    ],
)
def test_what_is_free_is_tested_by_the_kind_of_head(head, found):
    model = dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', **head))
    assert benchmark._curve(Config(dict(model=model, class_counts=[9, 1]))) == found


def test_a_finished_comparison_has_no_time_left(tmp_path, monkeypatch):
    columns = []
    progress = benchmark.Progress

    def watched(*given, **options):
        columns.extend(given)
        return progress(*given, **options)

    monkeypatch.setattr(benchmark, 'Progress', watched)
    assert benchmark.run_all([plan()], tmp_path) == {}
    with progress() as bar:
        number = bar.add_task('', total=1)
        bar.update(number, completed=1)
        task = bar.tasks[number]
        task.finished_time = 3600.0
        after = columns[1 + next(i for i, c in enumerate(columns) if 'ETA' in str(vars(c)))]
        assert after.render(task).plain == '0:00:00'


def test_what_is_complete_is_not_run_again(tmp_path):
    benchmark.run_all([plan()], tmp_path)
    before = (tmp_path / 'recall.json').read_bytes(), attempts(tmp_path)
    assert benchmark.run_all([plan()], tmp_path) == {}
    assert ((tmp_path / 'recall.json').read_bytes(), attempts(tmp_path)) == before


def test_a_trained_run_without_a_record_is_only_tested(tmp_path):
    benchmark.run_all([plan()], tmp_path)
    (tmp_path / 'recall.json').unlink()
    benchmark.run_all([plan()], tmp_path)
    assert attempts(tmp_path) == 3
    assert read_record(tmp_path / 'recall.json')['memory_mib']['process'] is None


def test_a_failing_run_is_recorded_and_the_others_go_on(tmp_path):
    Path(f'{tmp_path}.misbehave').write_text('fail')
    failures = benchmark.run_all([plan(), plan('ce', 'CrossEntropyLoss')], tmp_path)
    assert failures == {
        'recall': 'training ended with status 3: the loss [red]exploded[/blue] in [1, 2]'
    }
    record = read_record(tmp_path / 'recall.json')
    assert record['status'] == 'failed'
    assert record['failure']['log_tail'].endswith('the loss [red]exploded[/blue] in [1, 2]')
    assert read_record(tmp_path / 'ce.json')['status'] == 'complete'


def test_a_failed_run_resumes_from_its_last_checkpoint(tmp_path):
    Path(f'{tmp_path}.misbehave').write_text('fail')
    benchmark.run_all([plan()], tmp_path)
    Path(f'{tmp_path}.misbehave').unlink()
    assert benchmark.run_all([plan()], tmp_path) == {}
    second = tmp_path / 'recall' / '20260101_000001' / 'vis_data' / 'scalars.json'
    assert json.loads(second.read_text().splitlines()[0])['step'] == 11
    curves = read_record(tmp_path / 'recall.json')['curves']
    assert curves['iterations'] == list(range(1, 31))


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    Path(f'{tmp_path}.misbehave').write_text('fail')
    benchmark.run_all([plan()], tmp_path)
    Path(f'{tmp_path}.misbehave').unlink()
    whole = tmp_path / 'recall' / 'iter_10.pth'
    (tmp_path / 'recall' / 'iter_20.pth').write_bytes(whole.read_bytes()[:-1])
    assert benchmark.run_all([plan()], tmp_path) == {}
    second = tmp_path / 'recall' / '20260101_000001' / 'vis_data' / 'scalars.json'
    assert json.loads(second.read_text().splitlines()[0])['step'] == 11


def test_a_changed_config_is_refused_before_anything_runs(tmp_path):
    benchmark.run_all([plan()], tmp_path)
    changed = plan(config=CONFIG.format(loss='OHEMLoss'))
    with pytest.raises(ValueError, match=r'recall\.py.*has changed'):
        benchmark.run_all([plan('new'), changed], tmp_path)
    assert not (tmp_path / 'new').exists()


def test_the_best_checkpoint_is_tested_where_that_is_the_rule(tmp_path):
    benchmark.run_all([plan(checkpoint='best')], tmp_path)
    assert read_record(tmp_path / 'recall.json')['checkpoint'] == {'rule': 'best', 'step': 20}


def test_another_checkpoint_rule_is_refused(tmp_path):
    benchmark.run_all([plan()], tmp_path)
    with pytest.raises(ValueError, match='checkpoint rule'):
        benchmark.run_all([plan(checkpoint='best')], tmp_path)


@pytest.mark.parametrize('error', [KeyError('img_path'), TypeError('None'), cv2.error('depth')])
def test_a_data_set_that_cannot_be_shown_does_not_end_the_comparison(tmp_path, monkeypatch, error):
    def broken(*args):
        raise error

    monkeypatch.setattr(record_module, 'make_panel', broken)
    failures = benchmark.run_all([plan()], tmp_path)
    text = f'{type(error).__name__}: {error}'
    assert failures == {'recall': f'the record ended with status 1: {text}'}


@pytest.mark.parametrize('there', [0, 1, 3])
def test_images_that_came_or_went_since_the_test_leave_a_record_that_is_read(
    tmp_path, monkeypatch, there
):
    monkeypatch.setattr(record_module, 'image_names', lambda cfg: [str(i) for i in range(there)])
    with pytest.warns(UserWarning, match=f'2 images were tested, and {there} are there now'):
        assert benchmark.run_all([plan()], tmp_path) == {}
    [run], problems = load_runs([tmp_path])
    assert problems == [] and run.images is None


@pytest.mark.parametrize(
    ('load_from', 'step'),
    [
        ('resnet50_places.pth', 0),
        ('https://download.openmmlab.com/resnet50_20210831-ea4938f1.pth', 0),
        ('epoch_40.pth', 40),
    ],
)
def test_a_config_that_trains_nothing_has_its_checkpoint_tested(
    tmp_path, monkeypatch, load_from, step
):
    monkeypatch.chdir(tmp_path)
    if '://' not in load_from:
        Path(load_from).touch()
    config = CONFIG.format(loss='RecallLoss').replace('train_cfg', f'load_from = {load_from!r}\n_')
    assert benchmark.run_all([plan(config=config)], tmp_path / 'out') == {}
    record = read_record(tmp_path / 'out' / 'recall.json')
    assert record['checkpoint'] == {'rule': 'last', 'step': step}


@pytest.mark.parametrize('load_from', ['https://host/epoch_40.pth', 'nowhere.pth', 'foreign.pth'])
def test_a_classifier_made_from_an_unknown_training_is_described_by_itself(
    tmp_path, monkeypatch, load_from
):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}), 'foreign.pth')
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(backbone=dict(type='ResNet', depth=50)),
            head=dict(type='TauNormalizedHead', tau=1.0),
            test_dataloader=dict(dataset=dict(type='PlacesLT')),
            load_from=load_from,
        )
    )
    setup = describe(cfg)
    assert (setup['loss'], setup['model']) == ('tau-norm tau=1.0', 'ResNet-50')


@pytest.mark.parametrize('checkpoint', ['last', 'best'])
def test_a_run_that_diverged_is_failed_with_its_iteration(tmp_path, checkpoint):
    Path(f'{tmp_path}.misbehave').write_text('diverge')
    message = 'training: diverged, the loss is not finite from iteration 15 on'
    plans = [plan(checkpoint=checkpoint)]
    assert benchmark.run_all(plans, tmp_path) == {'recall': message}
    assert read_record(tmp_path / 'recall.json')['status'] == 'failed'
    # Neither trained nor tested again, and failed still.
    assert benchmark.run_all(plans, tmp_path) == {'recall': message}
    assert attempts(tmp_path) == 1
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and message in problem


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_have_diverged_unlogged(tmp_path, value):
    weights = dict(bias=torch.tensor([1.0, value]), mask=torch.tensor([-math.inf]))
    torch.save(dict(state_dict=weights), os.environ['CHECKPOINT'])
    (message,) = benchmark.run_all([plan()], tmp_path).values()
    assert message == 'training: diverged, the weights of iter_30.pth are not finite'


@pytest.mark.parametrize('killed', [True, False])
def test_checkpoints_by_iteration_do_not_end_a_training_of_epochs(tmp_path, killed):
    # 30 iterations are 4 epochs, and the checkpoints iter_10, iter_20 are more than 4.
    config = CONFIG.format(loss='RecallLoss').replace('max_iters=30', 'max_epochs=4')
    if killed:
        Path(f'{tmp_path}.misbehave').write_text('fail')
        benchmark.run_all([plan(config=config)], tmp_path)
        Path(f'{tmp_path}.misbehave').unlink()
    assert benchmark.run_all([plan(config=config)], tmp_path) == {}
    assert read_record(tmp_path / 'recall.json')['checkpoint'] == {'rule': 'last', 'step': 30}


def test_the_test_that_was_made_counts_whatever_the_clock_says(tmp_path):
    Path(f'{tmp_path}.misbehave').write_text('put the clock back')
    for tests in range(3):
        assert benchmark.run_all([plan()], tmp_path) == {}
        assert read_record(tmp_path / 'recall.json')['metrics']['tests'] == tests
        (tmp_path / 'recall.json').unlink()


OUTS = [
    'my runs',
    'a, b',
    'runs[1]',
    "it's",
    'a=b',
    '{c}',
    '[red]',
    'größer',
    '"x"',
    '$HOME',
    'a\\b',
]


@pytest.mark.parametrize('name', OUTS)
def test_a_folder_may_have_any_name(tmp_path, name):
    out = tmp_path / name
    Path(f'{out}.misbehave').write_text('fail')
    assert benchmark.run_all([plan()], out)
    Path(f'{out}.misbehave').unlink()
    assert benchmark.run_all([plan()], out) == {}  # resumed and tested
    assert read_record(out / 'recall.json')['status'] == 'complete'
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_folder_of_somebody_is_refused_before_work_starts(tmp_path):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(FileExistsError, match=r'thesis\.tex, which benchmark did not make'):
        benchmark.run_all([plan()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('name', ['recall', 'recall.json'])
def test_what_has_the_name_of_a_run_and_is_none_is_refused(tmp_path, name):
    benchmark.run_all([plan('ce', 'CrossEntropyLoss')], tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match=f'{name} has no recall.py beside it'):
        benchmark.run_all([plan()], tmp_path)


def test_jobs_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(benchmark.os, 'cpu_count', lambda: 8)
    seen = []
    run = benchmark._run

    def spy(plan, cfg, out, env, *others):
        seen.append(env['OMP_NUM_THREADS'])
        return run(plan, cfg, out, env, *others)

    monkeypatch.setattr(benchmark, '_run', spy)
    plans = [plan(), plan('ce', 'CrossEntropyLoss')]
    assert benchmark.run_all(plans, tmp_path, jobs=2) == {}
    assert seen == ['4', '4']


RUN = """
import signal
# A shell without job control starts what runs in the background deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
import pytest
from pathlib import Path
from tests.comparison import test_benchmark as t
patch = pytest.MonkeyPatch()
t.use_stand_ins(patch)
t.benchmark.run_all([t.plan()], Path({out!r}))
"""


@pytest.mark.parametrize(
    'how', [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_killed_comparison_goes_on_from_the_last_checkpoint(tmp_path, how):
    Path(f'{tmp_path}.misbehave').write_text('wait')
    command = [sys.executable, '-c', RUN.format(out=str(tmp_path))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    scalars = tmp_path / 'recall' / '20260101_000000' / 'vis_data' / 'scalars.json'
    deadline = time.monotonic() + 120
    while not (scalars.exists() and '"step": 15' in scalars.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    process.wait()
    assert not (tmp_path / 'recall.json').exists()
    Path(f'{tmp_path}.misbehave').unlink()
    if how == signal.SIGKILL:
        # The training outlives a comparison that is killed so, and keeps its lock: the next one
        # waits for it instead of training into the same folder.
        waiting = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        pid = int((tmp_path / 'recall' / 'pid').read_text())
        says = f'process {pid} works on it'
        assert any(says in line for line in waiting.stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        assert attempts(tmp_path) == 1
        os.kill(pid, signal.SIGTERM)
        output, _ = waiting.communicate(timeout=120)
        assert waiting.returncode == 0
        assert says not in output  # which was said once
    else:
        assert benchmark.run_all([plan()], tmp_path) == {}
    record = read_record(tmp_path / 'recall.json')
    assert record['status'] == 'complete'
    second = tmp_path / 'recall' / '20260101_000001' / 'vis_data' / 'scalars.json'
    assert json.loads(second.read_text().splitlines()[0])['step'] == 11


@pytest.mark.slow
def test_reports_and_counts_need_nothing_that_windows_lacks():
    code = "import sys; sys.modules['fcntl'] = None; import mmseg_recall.comparison"
    subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ})
