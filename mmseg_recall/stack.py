"""The installed MMSegmentation stack: which one it is, and what has to be mended in it.

Two distributions ship the same modules ``mmseg``, ``mmcv`` and ``mmengine``. The plugin imports
only those names and depends on neither distribution, so this module is where a missing or
unsuitable one is noticed, and the one place for a workaround of a defect in either.
"""

from __future__ import annotations

import codecs
import functools
import logging
import os
import runpy
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STACKS: dict[str, dict[str, tuple[str, str]]] = {
    'onedl': {
        'onedl-mmsegmentation': ('1.4', '1.5'),
        'onedl-mmcv': ('2.3', '2.4'),
        'onedl-mmengine': ('0.10.10', '0.11'),
    },
    'openmmlab': {
        'mmsegmentation': ('1.2.2', '1.3'),
        'mmcv': ('2.1', '2.2'),
        'mmengine': ('0.10.7', '0.11'),
    },
}
"""Supported distributions of each stack: first supported version, first unsupported version."""

MMPRETRAIN: dict[str, dict[str, tuple[str, str]]] = {
    'onedl': {'onedl-mmpretrain': ('1.3', '1.4')},
    'openmmlab': {'mmpretrain': ('1.2', '1.3')},
}
"""What classification needs on each stack, in the same form."""

INSTALL_HELP = """\
Install one of the two stacks, in a checkout of mmseg_recall:
    pip install '.[onedl]'       # maintained, pure Python
    pip install '.[openmmlab]'   # the 2023 releases; mmcv compiles its ops"""


def check_stack() -> str:
    """The installed stack, which whatever is not plain torch asks for first.

    Raises:
        ImportError: As :func:`find_stack`, or there is none; the message has the install lines.
    """
    name = find_stack()
    if name is None:
        raise ImportError(
            'This part of mmseg_recall needs MMSegmentation, and none is installed; its losses '
            f'and functions need torch only.\n{INSTALL_HELP}'
        )
    return name


def find_stack() -> str | None:
    """Find the installed stack without importing any of it.

    Returns:
        The stack's name, a key of :data:`STACKS`; None where no part of one is installed.

    Raises:
        ImportError: Part of a stack is missing, a version is outside the supported range, or both
            stacks are installed over each other.
    """
    installed = {
        name: {dist: _installed_version(dist) for dist in ranges} for name, ranges in STACKS.items()
    }
    present = [name for name, dists in installed.items() if any(dists.values())]
    if not present:
        return None
    if len(present) > 1:
        found = ', '.join(d for dists in installed.values() for d, found in dists.items() if found)
        raise ImportError(
            f'mmseg_recall found both MMSegmentation stacks ({found}). They write the same files '
            f'and break each other: start from a fresh environment.\n{INSTALL_HELP}'
        )
    (name,) = present
    problems = [
        f'{dist} is {found or "missing"}, supported is >={low},<{high}'
        for dist, found in installed[name].items()
        for low, high in [STACKS[name][dist]]
        if not (found and _in_range(found, low, high))
    ]
    if problems:
        raise ImportError(
            'mmseg_recall cannot use the installed MMSegmentation: '
            f'{"; ".join(problems)}.\n{INSTALL_HELP}'
        )
    return name


def check_mmpretrain() -> None:
    """Check that mmpretrain is installed, of the distribution that belongs to the stack.

    Raises:
        ImportError: It is not, or in another version; the message is the line that installs it.
    """
    ((dist, (low, high)),) = MMPRETRAIN[check_stack()].items()
    found = _installed_version(dist)
    if not (found and _in_range(found, low, high)):
        raise ImportError(
            f'mmseg_recall.classification needs {dist} >={low},<{high}, and '
            f'{found or "none"} is installed. Install it beside the stack:\n'
            f"    pip install '{dist}>={low},<{high}' scikit-learn torchvision"
        )


def _installed_version(dist: str) -> str | None:
    try:
        return version(dist)
    except PackageNotFoundError:
        return None


def _in_range(found: str, low: str, high: str) -> bool:
    # Both stacks bring `packaging`; without a stack this line is never reached.
    from packaging.version import Version

    return Version(low) <= Version(found) < Version(high)


def stock_script(name: str, package: str = 'mmseg') -> Path:
    """Path of a script of the installed mmseg, such as ``train.py``.

    Raises:
        FileNotFoundError: The installed package carries no such script.

    Example:
        >>> stock_script('train.py').name
        'train.py'
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'{package} is not installed, whose {name} is to be run')
    folder = Path(spec.origin).parent
    # A wheel carries the scripts in mmseg/.mim; an editable checkout has them beside the package.
    candidates = [folder / '.mim' / 'tools' / name, folder.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'The installed {package} has no {name}; looked for ' + ' and '.join(map(str, candidates))
    )


def run_stock_script(name: str, package: str = 'mmseg') -> None:
    """Run a script of the installed mmseg as ``__main__``, with this process's arguments."""
    _prepare_cpu_ranks()
    _keep_checkpoints_whole()
    _refuse_pickles()
    runpy.run_path(str(stock_script(name, package)), run_name='__main__')


def _prepare_cpu_ranks() -> None:
    # Without a GPU, mmengine's launcher calls torch.cuda.set_device() all the same, but leaves
    # alone a process group that exists; it turns BN into SyncBN, which torch refuses there, and
    # gives each rank's model a GPU.
    import torch
    from mmengine.runner import runner

    if 'TORCHELASTIC_RUN_ID' in os.environ and not torch.cuda.is_available():
        torch.distributed.init_process_group('gloo')
        runner.convert_sync_batchnorm = lambda model, implementation: model
        wrapper = runner.MMDistributedDataParallel
        runner.MMDistributedDataParallel = lambda device_ids, **options: wrapper(**options)


def _keep_checkpoints_whole() -> None:
    # A run may be killed at any moment. mmengine writes a checkpoint under its final name, removes
    # the one before it first, and resumes from whatever its pointer names, half-written or not.
    from mmengine.hooks import CheckpointHook
    from mmengine.runner import runner

    from .checkpoints import find_latest_checkpoint

    runner.find_latest_checkpoint = find_latest_checkpoint
    runner.save_checkpoint = _save_under_another_name(runner.save_checkpoint)
    for method in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, method, _remove_last(getattr(CheckpointHook, method)))


def _save_under_another_name(save: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(save)
    def save_checkpoint(checkpoint: dict, filename: str, *args: Any, **kwargs: Any) -> None:
        if '://' in filename:  # remote storage shows an object only when it is whole
            save(checkpoint, filename, *args, **kwargs)
        else:
            temporary = f'{filename}.tmp'
            save(checkpoint, temporary, *args, **kwargs)
            os.replace(temporary, filename)

    return save_checkpoint


def _remove_last(save: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(save)
    def save_then_remove(hook: Any, *args: Any, **kwargs: Any) -> None:
        removed: list[str] = []
        backend = hook.file_backend
        remove, backend.remove = backend.remove, removed.append
        try:
            save(hook, *args, **kwargs)
        finally:
            backend.remove = remove
        best = getattr(hook, 'best_ckpt_path_dict', {}).values()
        kept = {hook.last_ckpt, getattr(hook, 'best_ckpt_path', None), *best}
        for path in removed:
            if path not in kept:
                remove(path)

    return save_then_remove


def _refuse_pickles() -> None:
    # Where a checkpoint holds more than weights, the fork of mmengine unpickles it without a
    # question, which runs whatever code is in it. Who trusts such a file sets torch's variable.
    if not os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')


def rewrite_configs(complete: Callable[..., None], rewrite: Callable[..., Any]) -> None:
    """Have mmengine do what a config asks of this package, whoever reads it or trains with it."""
    from mmengine.config import Config
    from mmengine.runner import FlexibleRunner, Runner

    for runner_class in (Runner, FlexibleRunner):
        runner_class.from_cfg = classmethod(_rewriting(runner_class.from_cfg.__func__, rewrite))
    for method in ('__init__', 'merge_from_dict'):
        setattr(Config, method, _completing(getattr(Config, method), complete))


def _rewriting(build: Callable[..., Any], rewrite: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def from_cfg(cls: type, cfg: Any) -> Any:
        from mmengine.config import Config

        report: list[tuple[int, str]] = []
        missing = None
        try:
            cfg = rewrite(cfg if isinstance(cfg, Config) else Config(cfg), report)
        except FileNotFoundError as error:
            missing = error  # the class counts of a loss, without which a model can be tested
        runner = build(cls, cfg)
        for level, line in report:
            runner.logger.log(level, line)
        if missing:
            runner.train = _raising(missing)
        return runner

    return from_cfg


def _raising(error: Exception) -> Callable[[], None]:
    def train() -> None:
        raise error

    return train


def _completing(change: Callable[..., None], complete: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(change)
    def changed(cfg: Any, *args: Any, **kwargs: Any) -> None:
        change(cfg, *args, **kwargs)
        complete(cfg)

    return changed


def apply_workarounds() -> None:
    """Mend what is broken in the installed stack; harmless when called again."""
    _allow_mmengine_checkpoints()
    _find_configs()
    _silence_imports()


def _silence_imports() -> None:
    # At each start the fork of mmseg prints, as a message for debugging, that it misses a part that
    # hardly anybody has, and mmcv warns of an operator that it does not bring.
    from mmengine import logging as stock

    if not hasattr(stock.print_log, '__wrapped__'):
        stock.print_log = _heeding_the_level(stock.print_log)
    message = 'Fail to import ``MultiScaleDeformableAttention``'
    warnings.filterwarnings('ignore', message, UserWarning, r'mmcv\.cnn\.bricks\.transformer')


def _heeding_the_level(print_log: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(print_log)
    def quiet(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
        if logger is not None or level >= logging.INFO:
            print_log(msg, logger, level)

    return quiet


def _find_configs() -> None:
    # For `mmseg::...` among _base_, and mmengine.hub, mmengine has a table of distributions, in
    # which the fork has kept the other one's: it would install that over itself.
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmseg'] = next(iter(STACKS[check_stack()]))
    MODULE2PACKAGE['mmseg_recall'] = 'mmseg_recall'


def _allow_mmengine_checkpoints() -> None:
    # torch >= 2.6 loads with weights_only=True by default, and run_stock_script() makes older ones.
    # It then refuses what mmengine stores beside the weights, its message hub, and mmengine 0.10.7
    # cannot resume from or test its own checkpoints. Only what the hub is made of is allowed.
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer
    from packaging.version import Version

    array_from_bytes = np.empty(0).__reduce__()[0]
    scalar_from_bytes = np.float64().__reduce__()[0]

    def history_buffer_method(owner: type, name: str) -> object:
        # The buffer pickles a table of its own methods, which takes getattr; nothing else may.
        if owner is not HistoryBuffer:
            raise TypeError(f'A checkpoint may not read attribute {name!r} of {owner!r}')
        return getattr(owner, name)

    history_buffer_method.__module__ = 'builtins'
    history_buffer_method.__name__ = history_buffer_method.__qualname__ = 'getattr'
    allowed = [
        HistoryBuffer,
        history_buffer_method,
        array_from_bytes,
        scalar_from_bytes,
        codecs.encode,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(t)) for t in (np.float32, np.float64, np.int32, np.int64)),
    ]
    if Version(torch.__version__) >= Version('2.6'):
        # Each with its name: whenever the fork of mmengine loads a checkpoint, it ends by taking
        # its own list, most of these among it, off torch's; an entry with a name is not on it.
        allowed = [(item, f'{item.__module__}.{item.__qualname__}') for item in allowed]
    torch.serialization.add_safe_globals(allowed)
