"""The parts of the build that pyproject.toml cannot say: the kernel, and the folder for mim."""

import shutil
import zlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SOURCE = 'mmseg_recall/functional/engines/cpu_kernels.c'
UNIX_FLAGS = ['-O3', '-g0', '-fno-math-errno', '-fno-trapping-math', '-fopenmp-simd']
MSVC_FLAGS = ['/O2', '/std:c11', '/openmp:experimental']
# Optional: torch's operations do its work without it.
KERNELS = Extension(
    'mmseg_recall.functional.engines._cpu_kernels',
    [SOURCE],
    define_macros=[('SOURCE_CHECKSUM', f'{zlib.crc32((ROOT / SOURCE).read_bytes())}u')],
    optional=True,
)


class BuildLibrary(build_ext):
    """Build a library of plain C that ctypes loads: no Python module, whichever Python loads it."""

    def build_extensions(self) -> None:
        msvc = self.compiler.compiler_type == 'msvc'
        KERNELS.extra_compile_args = MSVC_FLAGS if msvc else UNIX_FLAGS
        if not msvc:  # a Python with a shared library would leave its own path in ours
            linker = self.compiler.linker_so
            self.compiler.linker_so = [part for part in linker if not part.startswith('-Wl,-rpath')]
        super().build_extensions()

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return ext.export_symbols  # no PyInit function

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace('.', '/') + EXTENSION_SUFFIXES[-1]  # no version of Python


class WheelForEachPython(bdist_wheel):
    """Tag the wheel with the platform only."""

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


class BuildWithMim(build_py):
    """Put the configs and tools into the wheel, as mmseg_recall/.mim, the way mmseg has them.

    In an editable install it holds links to those of the checkout.
    """

    def run(self) -> None:
        super().run()
        root = ROOT if self.editable_mode else Path(self.build_lib)
        mim = root / 'mmseg_recall' / '.mim'
        mim.mkdir(parents=True, exist_ok=True)
        for folder in ('configs', 'tools'):
            if not self.editable_mode:
                ignored = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / folder, mim / folder, ignore=ignored, dirs_exist_ok=True)
            elif not (mim / folder).exists():
                (mim / folder).symlink_to(Path('..', '..', folder), target_is_directory=True)
        # Without an index mmengine does not look for `mmseg_recall::...` among the configs.
        (mim / 'model-index.yml').write_text('Import: []\n')


setup(
    ext_modules=[KERNELS],
    cmdclass={
        'bdist_wheel': WheelForEachPython,
        'build_ext': BuildLibrary,
        'build_py': BuildWithMim,
    },
)
