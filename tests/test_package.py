"""The source distribution and the wheel: what a user without the checkout gets."""

import shutil
import sys
import sysconfig
import tarfile
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from mmengine.config import Config
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmseg_recall.functional.engines import cpu_library
from mmseg_recall.stack import MMPRETRAIN, STACKS

from .tools.run import ROOT, run

pytestmark = pytest.mark.slow  # a wheel is built
PACKAGED = ('configs', 'tools')
MADE_BY_THE_BUILD = {'PKG-INFO', 'setup.cfg'}


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> Path:
    """A copy of the sources as git has them."""
    lines = (ROOT / '.gitignore').read_text().split()
    patterns = [line.strip('/') for line in lines if '/' not in line.rstrip('/')]
    anchored = (line.strip('/') for line in lines if '/' in line.rstrip('/'))
    paths = {path for line in anchored for path in ROOT.glob(line)}
    by_name = shutil.ignore_patterns('.git', '.mypy_cache', *patterns)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return by_name(folder, names) | {n for n in names if Path(folder, n) in paths}

    copy = tmp_path_factory.mktemp('checkout') / 'sources'
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope='module')
def sdist(sources, tmp_path_factory) -> Path:
    """The source distribution, unpacked."""
    given = files_in(sources)
    folder = tmp_path_factory.mktemp('sdist')
    build = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
    run(sys.executable, '-c', build, folder, cwd=sources)
    (archive,) = folder.glob('mmseg_recall-*.tar.gz')
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter='data')
    (unpacked,) = (p for p in folder.iterdir() if p.is_dir())
    assert {p for p in files_in(unpacked) - MADE_BY_THE_BUILD if '.egg-info' not in p} == given
    return unpacked


@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory) -> Path:
    """A wheel built from the source distribution, without a package index."""
    folder = tmp_path_factory.mktemp('wheel')
    run(
        sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
        '--no-index', '--wheel-dir', folder, sdist,
    )  # fmt: skip
    (wheel,) = folder.glob('mmseg_recall-*.whl')
    return wheel


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel is unpacked."""
    site = tmp_path_factory.mktemp('site')
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_wheel_serves_each_python_of_its_platform(wheel):
    platform = sysconfig.get_platform().replace('-', '_').replace('.', '_')
    assert wheel.stem.split('-')[2:] == ['py3', 'none', platform]


def test_wheel_carries_the_package_configs_and_tools(site, sources):
    kernels = f'functional/engines/_cpu_kernels{EXTENSION_SUFFIXES[-1]}'
    expected = files_in(sources / 'mmseg_recall') | {
        f'.mim/{folder}/{name}' for folder in PACKAGED for name in files_in(sources / folder)
    }
    expected.add('.mim/model-index.yml')  # what mmengine asks for of a package with configs
    assert files_in(site / 'mmseg_recall') - {kernels} == expected
    assert 'py.typed' in expected


def test_kernel_of_the_wheel_is_used_and_names_no_folder_of_the_builder(site, tmp_path):
    path = site / f'mmseg_recall/functional/engines/_cpu_kernels{EXTENSION_SUFFIXES[-1]}'
    assert path.is_file() == (cpu_library.LIBRARY is not None)  # where there is a compiler
    library = path.read_bytes() if path.is_file() else b''
    for name in ('prefix', 'base', 'LIBDIR'):
        assert f'{sysconfig.get_config_var(name)}/'.encode() not in library, name
    code = 'from mmseg_recall.functional.engines import cpu_library as c; print(c.LIBRARY)'
    output = run(sys.executable, '-c', code, cwd=tmp_path, PYTHONPATH=str(site))
    assert (str(path) if library else 'None') in output.splitlines()[-1]


def test_wheel_requires_torch_only_and_offers_the_stacks_that_the_package_checks(site):
    (metadata,) = site.glob('mmseg_recall-*.dist-info/METADATA')
    required = [
        Requirement(line.removeprefix('Requires-Dist: '))
        for line in metadata.read_text().splitlines()
        if line.startswith('Requires-Dist: ')
    ]
    assert [str(r) for r in required if r.marker is None] == ['torch>=2.4']
    for extra, ranges in {**STACKS, 'classification': MMPRETRAIN['onedl']}.items():
        versions = {
            r.name: r.specifier
            for r in required
            if r.specifier and r.marker and r.marker.evaluate({'extra': extra})
        }
        assert versions == {
            dist: SpecifierSet(f'>={low},<{high}') for dist, (low, high) in ranges.items()
        }


def test_packaged_config_and_tool_run_without_the_checkout(site, tmp_path):
    mim = site / 'mmseg_recall' / '.mim'
    cfg = Config.fromfile(mim / 'configs/recall/deeplabv3_r18_synthia.py')
    assert cfg.imbalance_loss.type == 'RecallLoss'
    output = run(mim / 'tools/train.py', '--help', cwd=tmp_path, PYTHONPATH=str(site))
    assert '--cfg-options' in output


SCRIPT = """
import mmseg_recall
from mmengine.config import Config
from mmengine.hub import get_config
print(Config.fromfile('config.py').imbalance_loss)
print(get_config('mmseg_recall::recall/deeplabv3_r18_camvid.py').imbalance_loss)
"""


def test_packaged_configs_are_bases_by_name(site, tmp_path):
    bases = [
        'mmseg_recall::_base_/losses/recall.py',
        'mmseg::deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-769x769.py',
    ]
    (tmp_path / 'config.py').write_text(f'_base_ = {bases}')
    output = run(sys.executable, '-c', SCRIPT, cwd=tmp_path, PYTHONPATH=str(site))
    # The other lines are setuptools' own, of what mmengine imports on the second stack.
    printed = [line for line in output.splitlines() if line.startswith('{')]
    assert printed == ["{'type': 'RecallLoss', '_scope_': 'mmseg'}", "{'type': 'RecallLoss'}"]
