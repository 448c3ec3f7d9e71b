"""Output folders: only what a tool made itself is replaced or removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mmseg_recall import out_folder
from mmseg_recall.out_folder import MANIFEST, claim, write_files

FIRST = {'report.html': b'a', 'figures/scatter-1.svg': b'b', 'figures/scatter-2.svg': b'c'}
SECOND = {'report.html': b'new', 'figures/scatter-1.svg': b'b'}


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob('*')
        if p.is_file() and p.name != MANIFEST
    }


def test_what_the_tool_made_is_replaced_and_what_is_gone_is_removed(tmp_path):
    write_files(tmp_path / 'out', 'report', FIRST)
    assert files(tmp_path / 'out') == FIRST
    write_files(tmp_path / 'out', 'report', SECOND)
    assert files(tmp_path / 'out') == SECOND
    write_files(tmp_path / 'out', 'report', SECOND)
    assert files(tmp_path / 'out') == SECOND


MINE = ['README.md', 'model-index.yml', 'figures/scatter-1.svg', '.git/HEAD', 'MANIFEST']


@pytest.mark.parametrize('name', MINE)
def test_a_folder_of_somebody_is_refused_before_anything_is_written(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='which report did not make'):
        claim(tmp_path, 'report')
    with pytest.raises(FileExistsError, match='which report did not make'):
        write_files(tmp_path, 'report', FIRST)
    assert [p for p in tmp_path.rglob('*') if p.is_file()] == [path]


def put(text: bytes):
    def change(path: Path) -> None:
        path.write_bytes(text)

    return change


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize('name', ['report.html', 'figures/scatter-1.svg'])
@pytest.mark.parametrize('change', [put(b'my words'), put(b''), a_folder])
def test_what_somebody_has_changed_since_is_not_replaced(tmp_path, name, change):
    write_files(tmp_path, 'report', FIRST)
    change(tmp_path / name)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=f'{name} is not as report left it'):
        write_files(tmp_path, 'report', {**SECOND, 'figures/scatter-1.svg': b'other'})
    assert files(tmp_path) == before


def test_what_is_not_in_the_manifest_is_not_removed(tmp_path):
    write_files(tmp_path, 'report', FIRST)
    mine = {'figures/scatter-99.svg': b'mine', 'notes.md': b'mine'}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'figures/scatter-2.svg').write_bytes(b'mine, too')
    write_files(tmp_path, 'report', SECOND)
    assert files(tmp_path) == {**SECOND, **mine, 'figures/scatter-2.svg': b'mine, too'}
    # And is not replaced when the tool comes to that name.
    with pytest.raises(FileExistsError, match=r'scatter-99\.svg'):
        write_files(tmp_path, 'report', {'figures/scatter-99.svg': b'd'})


@pytest.mark.parametrize('last', range(5))
def test_a_call_that_is_killed_can_be_made_again(tmp_path, monkeypatch, last):
    write_files(tmp_path, 'report', FIRST)
    write, left = out_folder.write_atomically, iter(range(last))

    def until_killed(path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, data)

    third = {**SECOND, 'README.md': b'd'}
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(out_folder, 'write_atomically', until_killed)
        write_files(tmp_path, 'report', third)
    write_files(tmp_path, 'report', third)
    assert files(tmp_path) == third


def test_a_first_call_that_is_killed_can_be_made_again(tmp_path):
    (tmp_path / f'.{MANIFEST}.123.tmp').write_bytes(b'{')
    write_files(tmp_path, 'report', FIRST)


@pytest.mark.parametrize('outside', ['../thesis.tex', '/thesis.tex', 'link/thesis.tex'])
def test_a_manifest_that_names_what_is_outside_is_nobodys(tmp_path, outside):
    out, thesis = tmp_path / 'out', tmp_path / 'thesis.tex'
    thesis.write_bytes(b'c')
    write_files(out, 'report', FIRST)
    (out / 'link').symlink_to(tmp_path)
    name = outside.replace('/thesis', f'{tmp_path}/thesis') if outside[0] == '/' else outside
    manifest = json.loads((out / MANIFEST).read_text())
    manifest['files'][name] = manifest['files']['figures/scatter-2.svg']
    (out / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FileExistsError, match='did not make'):
        write_files(out, 'report', SECOND)
    assert thesis.exists()


MANIFESTS = [b'', b'[]', b'{}', b'{"format": 1}', b'\xff', b'[' * 100_000, b'null']


@pytest.mark.parametrize('text', MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_damaged_manifest_is_nobodys(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(FileExistsError, match='did not make'):
        claim(tmp_path, 'report')


def test_the_folder_of_another_tool_and_a_file_are_refused(tmp_path):
    write_files(tmp_path / 'out', 'report', FIRST)
    with pytest.raises(FileExistsError, match='was made by report, not benchmark'):
        claim(tmp_path / 'out', 'benchmark')
    with pytest.raises(FileExistsError, match='is a file'):
        claim(tmp_path / 'out' / 'report.html', 'report')


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    write_files(tmp_path / 'out', 'report', FIRST)
    os.symlink(tmp_path / 'out', tmp_path / 'link')
    write_files(tmp_path / 'link', 'report', SECOND)
    assert files(tmp_path / 'out') == SECOND
