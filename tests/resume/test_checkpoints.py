"""Which checkpoint is whole, which one is resumed from, and how they are written."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import runner as stock_runner

from mmseg_recall import stack
from mmseg_recall.checkpoints import (
    best_checkpoint,
    find_latest_checkpoint,
    is_whole,
    last_checkpoint,
)
from tests.datasets import stubs


def save(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        torch.save({'state_dict': {'weight': torch.arange(1000.0)}}, path)
    return paths


def test_every_truncation_and_damage_is_seen(tmp_path):
    (path,) = save(tmp_path, 'iter_1.pth')
    data = path.read_bytes()
    assert is_whole(path)
    for size in [*range(0, len(data), 97), *range(len(data) - 60, len(data))]:
        path.write_bytes(data[:size])
        assert not is_whole(path), size
    position = data.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    assert not is_whole(path)


def test_the_newest_whole_checkpoint_is_taken(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert best_checkpoint(tmp_path) is None
    nine, ten, best = save(tmp_path, 'iter_9.pth', 'iter_10.pth', 'best_mIoU_iter_9.pth')
    save(tmp_path, 'other.pth')
    assert last_checkpoint(tmp_path) == ten
    stubs.truncated(ten)
    assert last_checkpoint(tmp_path) == nine
    assert best_checkpoint(tmp_path) == best
    stubs.truncated(best)
    assert best_checkpoint(tmp_path) is None
    nine.unlink()
    nine.mkdir()
    assert last_checkpoint(tmp_path) is None


def test_what_is_resumed_from(tmp_path):
    assert find_latest_checkpoint(str(tmp_path)) is None
    pointer = tmp_path / 'last_checkpoint'
    nine, ten = save(tmp_path, 'iter_9.pth', 'iter_10.pth')
    pointer.write_text(str(nine))
    assert find_latest_checkpoint(str(tmp_path)) == str(nine)
    # Killed while writing it; not text at all; the whole folder has been moved.
    for content in (b'', b'\xff\xfe\x00', b'/moved/iter_10.pth'):
        pointer.write_bytes(content)
        assert find_latest_checkpoint(str(tmp_path)) == str(ten)
    pointer.write_text('s3://bucket/iter_10.pth')
    assert find_latest_checkpoint(str(tmp_path)) == 's3://bucket/iter_10.pth'
    pointer.write_text(str(ten))
    stubs.truncated(ten)
    assert find_latest_checkpoint(str(tmp_path)) == str(nine)
    stubs.truncated(nine)
    with pytest.raises(ValueError, match=r'iter_10\.pth, .*iter_9\.pth.*without --resume'):
        find_latest_checkpoint(str(tmp_path))


@pytest.fixture
def whole(monkeypatch):
    """mmengine as run_stock_script mends it, for one test."""
    for owner, name in (
        (stock_runner, 'find_latest_checkpoint'),
        (stock_runner, 'save_checkpoint'),
        (CheckpointHook, '_save_checkpoint_with_step'),
        (CheckpointHook, '_save_best_checkpoint'),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    stack._keep_checkpoints_whole()


def hook_with_a_checkpoint(folder: Path) -> CheckpointHook:
    """As it is when the checkpoint of iteration 1, the only one to keep, has been written."""
    hook = CheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=1)
    hook.out_dir, hook.file_backend, hook.keep_ckpt_ids = str(folder), LocalBackend(), deque([1], 1)
    save(folder, 'iter_1.pth')
    return hook


class Full(Exception):
    """The disk is."""


def failing_runner(folder: Path) -> SimpleNamespace:
    def save_checkpoint(*_: object, **__: object) -> None:
        raise Full

    hub = SimpleNamespace(update_info=lambda *_: None)
    return SimpleNamespace(work_dir=str(folder), message_hub=hub, save_checkpoint=save_checkpoint)


def test_mmengine_removes_the_old_checkpoint_first(tmp_path):
    """Fails when mmengine has mended it: ``_remove_last`` is then not needed."""
    hook = hook_with_a_checkpoint(tmp_path)
    with pytest.raises(Full):
        hook._save_checkpoint_with_step(failing_runner(tmp_path), 2, {})
    assert not (tmp_path / 'iter_1.pth').exists()


def test_the_old_checkpoint_is_removed_last(tmp_path, whole):
    hook = hook_with_a_checkpoint(tmp_path)
    with pytest.raises(Full):
        hook._save_checkpoint_with_step(failing_runner(tmp_path), 2, {})
    assert (tmp_path / 'iter_1.pth').exists()
    runner = failing_runner(tmp_path)
    runner.save_checkpoint = lambda folder, name, *_, **__: save(Path(folder), name)
    hook = hook_with_a_checkpoint(tmp_path)
    hook._save_checkpoint_with_step(runner, 2, {})
    assert not (tmp_path / 'iter_1.pth').exists()
    assert (tmp_path / 'iter_2.pth').exists()


def test_a_full_disk_leaves_no_checkpoint_that_looks_whole(tmp_path, whole, monkeypatch):
    path = tmp_path / 'iter_1.pth'
    stock_runner.save_checkpoint({'a': torch.ones(9)}, str(path))
    before = path.read_bytes()

    def put(backend: LocalBackend, data: bytes, name: str) -> None:
        Path(name).write_bytes(data[: len(data) // 2])
        raise OSError(28, os.strerror(28), name)

    monkeypatch.setattr(LocalBackend, 'put', put)
    with pytest.raises(OSError, match='No space left'):
        stock_runner.save_checkpoint({'a': torch.zeros(9)}, str(path))
    assert path.read_bytes() == before
    assert last_checkpoint(tmp_path) == path


def test_mmengine_resumes_from_whatever_the_pointer_names(tmp_path):
    """Fails when mmengine looks at the file: our ``find_latest_checkpoint`` is then not needed."""
    (path,) = save(tmp_path, 'iter_1.pth')
    stubs.truncated(path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    assert stock_runner.find_latest_checkpoint(str(tmp_path)) == str(path)


def test_mmengine_writes_under_the_final_name(tmp_path, monkeypatch):
    """Fails when mmengine mends it: ``_save_under_another_name`` is then not needed."""
    names = []
    monkeypatch.setattr(LocalBackend, 'put', lambda backend, data, name: names.append(name))
    stock_runner.save_checkpoint({}, str(tmp_path / 'iter_1.pth'))
    assert names == [str(tmp_path / 'iter_1.pth')]
