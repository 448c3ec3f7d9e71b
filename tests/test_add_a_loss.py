"""The section "Adding a loss" of docs/losses.md, pasted: three files, and the rest finds them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from .tools.run import ROOT, run

COPIED = ('configs', 'mmseg_recall', 'tests', 'conftest.py', 'pyproject.toml')


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, with the files of the section in it."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    section = (ROOT / 'docs/losses.md').read_text().split('\n## Adding a loss\n')[1]
    files = re.findall(r'`([\w/]+\.py)`:\n\n```python\n(.*?)```', section, re.DOTALL)
    assert [Path(name).parent.as_posix() for name, _ in files] == [
        'mmseg_recall/losses',
        'configs/_base_/losses',
        'tests/oracles',
    ]
    for name, text in files:
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    return folder


def test_is_exported_registered_and_swapped_in(checkout: Path, tmp_path: Path) -> None:
    program = f"""
from mmengine.config import Config
from mmseg.registry import MODELS
import mmseg_recall
from mmseg_recall.models import swap_loss

assert mmseg_recall.SquaredRecallLoss is MODELS.get('SquaredRecallLoss')
assert 'SquaredRecallLoss' in mmseg_recall.__all__
cfg = Config.fromfile('{checkout}/configs/_base_/losses/squared_recall.py')
ce = dict(type='CrossEntropyLoss', use_sigmoid=False)
cfg.model = dict(decode_head=dict(type='FCNHead', num_classes=5, loss_decode=ce))
print(swap_loss(cfg).model.decode_head.loss_decode.type)
"""
    output = run(sys.executable, '-c', program, cwd=tmp_path, PYTHONPATH=str(checkout))
    assert output.splitlines()[-1] == 'SquaredRecallLoss'


@pytest.mark.slow
def test_shared_tests_check_it(checkout: Path) -> None:
    words = 'SquaredRecall or squared_recall'
    output = run(
        sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', words,
        'tests/losses', 'mmseg_recall/losses/squared_recall.py', cwd=checkout,
        PYTHONPATH=str(checkout),
    )  # fmt: skip
    passed = int(re.search(r'(\d+) passed', output)[1])
    assert passed > 40 and 'failed' not in output
