"""Packaging. The settings of the development tools are in pyproject.toml."""

import re
import runpy
import shutil
import zlib
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mmseg_recall/__init__.py').read_text())[1]
# stack.py imports nothing that is not in the standard library.
STACK = runpy.run_path(str(ROOT / 'mmseg_recall/stack.py'))


def requirements(ranges: dict[str, tuple[str, str]]) -> list[str]:
    return [f'{dist}>={low},<{high}' for dist, (low, high) in ranges.items()]


# mmseg imports ftfy and regex without requiring them.
STACK_EXTRAS = {
    name: [*requirements(ranges), 'ftfy', 'regex'] for name, ranges in STACK['STACKS'].items()
}
SOURCE = 'mmseg_recall/functional/engines/cpu_kernels.c'
# A shared library of plain C, not a Python module. Optional: torch does its work without it.
KERNELS = Extension(
    'mmseg_recall.functional.engines._cpu_kernels',
    [SOURCE],
    define_macros=[('SOURCE_CHECKSUM', f'{zlib.crc32((ROOT / SOURCE).read_bytes())}u')],
    extra_compile_args=['-O3', '-g0', '-fno-math-errno', '-fno-trapping-math', '-fopenmp-simd'],
    optional=True,
)


class BuildWithMim(build_py):
    """Put the configs and tools into the wheel, as mmseg_recall/.mim, the way mmseg has them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ('configs', 'tools'):
            shutil.copytree(
                ROOT / folder,
                Path(self.build_lib) / 'mmseg_recall' / '.mim' / folder,
                ignore=shutil.ignore_patterns('__pycache__'),
                dirs_exist_ok=True,
            )


setup(
    name='mmseg_recall',
    version=VERSION,
    description='Recall loss and the losses it is compared with, for MMSegmentation',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').is_file() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmseg_recall', 'mmseg_recall.*']),
    include_package_data=True,
    ext_modules=[KERNELS],
    install_requires=['torch>=2.4'],
    extras_require={
        **STACK_EXTRAS,
        # For the onedl stack. mmpretrain imports torchvision without requiring it.
        'classification': [
            *requirements(STACK['MMPRETRAIN']['onedl']),
            'scikit-learn',
            'torchvision',
        ],
        'report': ['jinja2', 'matplotlib'],
        # Triton comes with torch for GPUs; the tests interpret and compile its kernels without one.
        'dev': [
            'hypothesis',
            'pytest',
            'pytest-cov',
            'ruff>=0.17,<0.18',
            'setuptools>=70.1',
            "triton>=3,<4; platform_system == 'Linux'",
        ],
    },
    cmdclass={'build_py': BuildWithMim},
)
