"""Without a stack the losses are all there, and whatever needs one says which to install.

Where a stack is installed it is hidden: neither its modules nor its distributions are found.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mmseg_recall.stack import INSTALL_HELP, MMPRETRAIN, STACKS

STACK_MODULES = {'mmcv', 'mmengine', 'mmpretrain', 'mmseg'}
DISTRIBUTIONS = {
    name for stacks in (STACKS, MMPRETRAIN) for dists in stacks.values() for name in dists
}
NEED_A_STACK = ['models', 'datasets', 'evaluation', 'hooks', 'diagnosis', 'comparison', 'report']
NEED_A_STACK += ['classification']
HIDE = f"""
import importlib.metadata, sys

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] in {STACK_MODULES}:
            raise ModuleNotFoundError(name)

def version(dist, find=importlib.metadata.version):
    if dist in {DISTRIBUTIONS}:
        raise importlib.metadata.PackageNotFoundError(dist)
    return find(dist)

sys.meta_path.insert(0, Hidden)
importlib.metadata.version = version
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-c', HIDE + code], capture_output=True, text=True)


def test_losses_and_the_compiled_kernel_need_torch_only() -> None:
    done = python(f"""
import mmseg_recall, torch
from mmseg_recall.functional.engines import cpu, cpu_library, pick_engine

assert not {STACK_MODULES} & {{name.partition('.')[0] for name in sys.modules}}
assert cpu_library.LIBRARY is not None
assert pick_engine(torch.zeros(1, 2, 4)) is cpu.CPU
logits = torch.zeros(1, 2, 4, requires_grad=True)  # predicts class 0 everywhere
for name, loss_class in mmseg_recall.available_losses().items():
    assert getattr(mmseg_recall, name) is loss_class
loss = mmseg_recall.RecallLoss()(logits, torch.tensor([[0, 0, 0, 1]]))
loss.backward()
print(f'{{loss.item():.4f}}')
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, '0.1733\n', '')


@pytest.fixture(scope='module')
def said() -> dict[str, str]:
    """The error of each room's import."""
    done = python(f"""
import importlib, json
said = {{}}
for room in {NEED_A_STACK}:
    try:
        importlib.import_module('mmseg_recall.' + room)
    except ImportError as error:
        said[room] = str(error)
print(json.dumps(said))
""")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('room', NEED_A_STACK)
def test_what_needs_a_stack_prints_both_install_lines(room: str, said: dict[str, str]) -> None:
    assert INSTALL_HELP in said[room]
    assert "pip install '.[onedl]'" in INSTALL_HELP and "pip install '.[openmmlab]'" in INSTALL_HELP
