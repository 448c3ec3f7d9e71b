"""A disk that fills up half-way: nothing half-written under its name, nothing left besides."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_recall import files
from mmseg_recall.out_folder import whole_folder


def fill_up(path: Path, data: bytes) -> None:
    with path.open('wb') as file:
        file.write(data[: len(data) // 2])
    # As write(2) says it: without a name.
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a file.txt'
    files.write_atomically(path, b'before')
    with monkeypatch.context() as full:
        full.setattr(Path, 'write_bytes', fill_up)
        for name in (path, tmp_path / 'new.txt'):
            with pytest.raises(OSError, match='No space left on device; not written') as error:
                files.write_atomically(name, b'after')
            assert error.value.errno == errno.ENOSPC
            assert error.value.filename == str(name)
    assert contents(tmp_path) == {'a file.txt': b'before'}
    files.write_atomically(path, b'after')
    assert contents(tmp_path) == {'a file.txt': b'after'}


def test_a_copy_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = tmp_path / 'source.png', tmp_path / 'out'
    source.write_bytes(b'picture')
    files.write_atomically(folder / 'copy.png', b'before')

    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, 'link', no_link)
    with monkeypatch.context() as full:
        full.setattr(shutil, 'copy2', lambda source, path: fill_up(path, source.read_bytes()))
        with pytest.raises(OSError, match='No space left') as error:
            files.link_or_copy(source, folder / 'copy.png')
    assert error.value.filename == str(folder / 'copy.png')
    assert contents(folder) == {'copy.png': b'before'}
    files.link_or_copy(source, folder / 'copy.png')
    assert contents(folder) == {'copy.png': b'picture'}


def test_a_folder_that_is_not_complete_has_another_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, 'write_bytes', fill_up)
    out = tmp_path / 'tree'
    with (
        pytest.raises(OSError, match='No space left'),
        whole_folder(out, 'a test', '') as (folder, _),
    ):
        files.write_atomically(folder / 'a.txt', b'whole')
    assert not out.exists()
    assert [path.name for path in tmp_path.rglob('*')] == ['tree.partial']


def test_two_processes_write_the_same_file(tmp_path: Path) -> None:
    path, processes = tmp_path / 'counts.json', []
    code = (  # the module alone: the package would import mmseg
        'import runpy, sys; from pathlib import Path; '
        'write = runpy.run_path(sys.argv[1])["write_atomically"]\n'
        'for _ in range(300): write(Path(sys.argv[2]), sys.argv[3].encode() * 50_000)'
    )
    for letter in 'ab':
        processes.append(
            subprocess.Popen([sys.executable, '-c', code, files.__file__, path, letter])
        )
    seen = set()
    while any(process.poll() is None for process in processes):
        if path.exists():
            data = path.read_bytes()
            assert len(data) == 50_000
            seen.add(bytes(set(data)))
    assert [process.returncode for process in processes] == [0, 0]
    assert seen <= {b'a', b'b'} and seen
    assert list(contents(tmp_path)) == ['counts.json']
