"""The wheel: what a user without the checkout gets."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config

from .tools.run import ROOT, run

PACKAGED = ('configs', 'tools')


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """A folder into which a wheel built from a copy of the sources is unpacked."""
    folder = tmp_path_factory.mktemp('wheel')
    sources = folder / 'sources'
    sources.mkdir()
    for name in ('mmseg_recall', *PACKAGED):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, sources)
    run(
        sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
        '--no-index', '--wheel-dir', folder, sources,
    )  # fmt: skip
    (wheel,) = folder.glob('mmseg_recall-*.whl')
    site = folder / 'site'
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_wheel_carries_every_module_config_and_tool(site):
    for name in PACKAGED:
        files = (p for p in (ROOT / name).rglob('*') if p.suffix in {'.py', '.sh', '.md'})
        ours = {p.relative_to(ROOT) for p in files}
        packaged = site / 'mmseg_recall' / '.mim'
        assert ours == {
            p.relative_to(packaged) for p in (packaged / name).rglob('*') if p.is_file()
        }
    modules = {p.relative_to(ROOT) for p in (ROOT / 'mmseg_recall').rglob('*.py')}
    assert modules <= {p.relative_to(site) for p in site.rglob('*.py')}


def test_wheel_does_not_require_a_stack(site):
    (metadata,) = site.glob('mmseg_recall-*.dist-info/METADATA')
    required = [
        line.removeprefix('Requires-Dist: ')
        for line in metadata.read_text().splitlines()
        if line.startswith('Requires-Dist: ') and 'extra ==' not in line
    ]
    assert required == ['torch>=2.4']


def test_packaged_config_and_tool_run_without_the_checkout(site, tmp_path):
    mim = site / 'mmseg_recall' / '.mim'
    cfg = Config.fromfile(mim / 'configs/recall/deeplabv3_r18_synthia.py')
    assert cfg.loss_decode.type == 'RecallLoss'
    output = run(mim / 'tools/train.py', '--help', cwd=tmp_path, PYTHONPATH=str(site))
    assert '--cfg-options' in output
