"""The check of the installed stack, and the workarounds."""

import os
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint, runner

from mmseg_recall import stack
from tests.tools.run import run

ONEDL = {'onedl-mmsegmentation': '1.4.2', 'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12'}
OPENMMLAB = {'mmsegmentation': '1.2.2', 'mmcv': '2.1.0', 'mmengine': '0.10.7'}


def pretend(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    def version(dist: str) -> str:
        if dist not in installed:
            raise PackageNotFoundError(dist)
        return installed[dist]

    monkeypatch.setattr(stack, 'version', version)


@pytest.mark.parametrize(('installed', 'name'), [(ONEDL, 'onedl'), (OPENMMLAB, 'openmmlab')])
def test_finds_the_stack(monkeypatch, installed, name):
    pretend(monkeypatch, installed)
    assert stack.check_stack() == name


@pytest.mark.parametrize(
    ('installed', 'message'),
    [
        ({}, 'its losses and functions need torch only'),
        (ONEDL | OPENMMLAB, 'both MMSegmentation stacks'),
        (ONEDL | {'onedl-mmsegmentation': '1.3.9'}, 'onedl-mmsegmentation is 1.3.9'),
        (ONEDL | {'onedl-mmcv': '2.4.0'}, 'onedl-mmcv is 2.4.0, supported is >=2.3,<2.4'),
        (OPENMMLAB | {'mmengine': '0.8.0'}, 'mmengine is 0.8.0'),
        ({'mmsegmentation': '1.2.2', 'mmengine': '0.10.7'}, 'mmcv is missing'),
    ],
)
def test_unsuitable_stack_prints_both_install_lines(monkeypatch, installed, message):
    pretend(monkeypatch, installed)
    with pytest.raises(ImportError, match=message) as error:
        stack.check_stack()
    assert "pip install '.[onedl]'" in str(error.value)
    assert "pip install '.[openmmlab]'" in str(error.value)


SPEAKS = """
import warnings
import mmseg_recall, mmseg.datasets, mmseg.models
warnings.warn('a warning of the user')
from mmengine.logging import print_log
print_log('a message of the user')
"""


def test_the_stack_says_nothing_when_it_is_imported(tmp_path):
    said = run(sys.executable, '-c', SPEAKS, cwd=tmp_path).splitlines()
    assert sorted(said) == [
        '<string>:4: UserWarning: a warning of the user',
        'a message of the user',
    ]


def test_ranks_without_a_gpu_keep_the_options_of_the_config(monkeypatch):
    """find_unused_parameters reaches the wrapper, which takes the device of the parameters."""
    given = {}
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', '1')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: None)
    monkeypatch.setattr(runner, 'convert_sync_batchnorm', None)
    monkeypatch.setattr(
        runner, 'MMDistributedDataParallel', lambda **options: given.update(options)
    )
    stack._prepare_cpu_ranks()
    for found in (True, False):
        one = SimpleNamespace(distributed=True, cfg=dict(find_unused_parameters=found))
        runner.Runner.wrap_model(one, None, torch.nn.Linear(1, 1))
        assert 'device_ids' not in given
        assert given['find_unused_parameters'] == found and not given['broadcast_buffers']


@pytest.mark.parametrize('layout', ['mmseg/.mim/tools', 'tools'], ids=['wheel', 'checkout'])
def test_finds_stock_script(monkeypatch, tmp_path, layout):
    package = tmp_path / 'mmseg'
    package.mkdir()
    (package / '__init__.py').touch()
    script = tmp_path / layout / 'train.py'
    script.parent.mkdir(parents=True)
    script.touch()
    spec = type('Spec', (), {'origin': str(package / '__init__.py')})
    monkeypatch.setattr(stack, 'find_spec', lambda name: spec)
    assert stack.stock_script('train.py') == script
    with pytest.raises(FileNotFoundError, match=r'no other\.py'):
        stack.stock_script('other.py')


def test_mmengine_checkpoint_loads_with_weights_only(tmp_path):
    # What mmengine's message hub puts into a checkpoint.
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    message_hub = {'log_scalars': {'train/loss': history}, 'resumed_keys': {'train/loss': True}}
    hub = {'message_hub': message_hub, 'best_score': np.float32(3.5)}
    torch.save(hub, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 0.375
    assert loaded['best_score'] == np.float32(3.5)


def test_mmengine_checkpoints_still_load_after_mmengine_has_loaded_one(tmp_path):
    torch.save({'message_hub': HistoryBuffer([0.5], [1])}, tmp_path / 'a.pth')
    load_checkpoint(torch.nn.Identity(), str(tmp_path / 'a.pth'))
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['message_hub'].mean() == 0.5


class _ReadsAttribute:
    def __reduce__(self):
        return getattr, (np.ndarray, '__class__')


class _RunsCommand:
    def __reduce__(self):
        return os.system, ('true',)


@pytest.mark.parametrize(
    'payload', [_ReadsAttribute(), _RunsCommand()], ids=lambda p: type(p).__name__
)
def test_weights_only_still_refuses_the_rest(tmp_path, payload):
    torch.save({'payload': payload}, tmp_path / 'a.pth')
    with pytest.raises(Exception, match=r'may not read attribute|is blocked|was not an allowed'):
        torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.parametrize(
    ('installed', 'message'),
    [
        (ONEDL, r"(?s)none is installed.*pip install 'onedl-mmpretrain>=1\.3,<1\.4'"),
        (ONEDL | {'onedl-mmpretrain': '1.2.0'}, r'1\.2\.0 is installed'),
        (OPENMMLAB, r"pip install 'mmpretrain>=1\.2,<1\.3'"),
    ],
)
def test_missing_mmpretrain_prints_the_install_line(monkeypatch, installed, message):
    pretend(monkeypatch, installed)
    with pytest.raises(ImportError, match=message):
        stack.check_mmpretrain()


@pytest.mark.parametrize(
    'installed', [ONEDL | {'onedl-mmpretrain': '1.3.6'}, OPENMMLAB | {'mmpretrain': '1.2.0'}]
)
def test_finds_mmpretrain(monkeypatch, installed):
    pretend(monkeypatch, installed)
    stack.check_mmpretrain()
