"""The checkpoints in a work directory: which are whole, and which one to resume from."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log


def is_whole(path: Path) -> bool:
    """Whether a file of ``torch.save`` has all of its bytes, and they are those that were written.

    Such a file is a zip archive: it ends with its directory, which a truncated one has not, and
    has a check sum of every tensor, which is compared. So the whole file is read once.

    Example:
        >>> is_whole(Path('no such file'))
        False
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises many types, depending on which byte is wrong
        return False


def checkpoint_step(path: str | Path) -> int:
    """Iteration (or epoch) in a checkpoint's name: 500 for ``iter_500.pth``, 0 for ``best.pth``.

    Example:
        >>> checkpoint_step('https://download.openmmlab.com/resnet50_20210831-ea4938f1.pth')
        0
    """
    found = re.search(r'(?:iter|epoch)_(\d+)\.pth$', str(path))
    return int(found.group(1)) if found else 0


def checkpoint_unit(path: str | Path) -> str | None:
    """What the number in a checkpoint's name counts: 'iterations', 'epochs', or nothing.

    Example:
        >>> checkpoint_unit('epoch_40.pth')
        'epochs'
    """
    found = re.search(r'(iter|epoch)_\d+\.pth$', str(path))
    return {'iter': 'iterations', 'epoch': 'epochs'}[found.group(1)] if found else None


def last_checkpoint(work_dir: Path) -> Path | None:
    """The newest whole checkpoint, from which training resumes; None if there is none."""
    return next(filter(is_whole, _newest_first(work_dir)), None)


def best_checkpoint(work_dir: Path) -> Path | None:
    """The newest whole checkpoint that ``save_best`` kept; None if there is none."""
    whole = filter(is_whole, work_dir.glob('best_*.pth'))
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)


def _newest_first(work_dir: Path) -> list[Path]:
    found = [p for p in work_dir.glob('*.pth') if re.fullmatch(r'(iter|epoch)_\d+\.pth', p.name)]
    by_unit: dict[str | None, list[Path]] = {}
    for path in sorted(found, key=checkpoint_step, reverse=True):
        by_unit.setdefault(checkpoint_unit(path), []).append(path)
    # Numbers of different units do not compare: the times of the newest of each do.
    groups = sorted(by_unit.values(), key=lambda group: group[0].stat().st_mtime, reverse=True)
    return [path for group in groups for path in group]


def find_latest_checkpoint(work_dir: str) -> str | None:
    """What ``--resume`` resumes from: the checkpoint that mmengine's pointer names, if it is whole.

    The pointer is the file ``last_checkpoint`` in the work directory. Where it is empty (a run was
    killed while writing it), or what it names is missing, truncated or damaged, the newest whole
    ``iter_*.pth`` or ``epoch_*.pth`` of the work directory is taken instead, and the log names
    each one refused.

    Raises:
        ValueError: There are checkpoints, and none is whole; names them.
    """
    refused = []
    for path in _candidates(Path(work_dir)):
        # In remote storage an object is there when all of it is.
        if '://' in path or is_whole(Path(path)):
            return path
        refused.append(path)
        message = f'{path} is missing, truncated or damaged: not resumed from'
        print_log(message, logger='current', level=logging.WARNING)
    if refused:
        raise ValueError(
            f'None of the checkpoints of {work_dir} is whole: {", ".join(refused)}. Name another '
            'one with --cfg-options load_from=FILE, or train from the start without --resume'
        )
    return None


def _candidates(work_dir: Path) -> Iterator[str]:
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if named:
        yield named
    yield from (str(path) for path in _newest_first(work_dir) if str(path) != named)
