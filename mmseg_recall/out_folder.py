"""Output folders: what a tool made is named in a manifest, and nothing else is ever touched.

``MANIFEST`` in a folder says which tool made it, from what, and which files. A tool takes a folder
that is absent, empty, or its own by that manifest, and refuses any other before it starts to work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .files import write_atomically

MANIFEST = 'MANIFEST'
FORMAT = 'mmseg_recall manifest 1'


class Manifest(NamedTuple):
    """What a tool says of a folder that it made.

    Attributes:
        tool: Its name.
        source: What the files were made from, in words; '' if they say it themselves.
        files: By path in the folder, what a file is known by: digests of its contents, or the
            state of the file that it was made from.
    """

    tool: str
    source: str = ''
    files: dict[str, list[str]] = {}  # noqa: RUF012  (never changed)


def claim(out: Path, tool: str, source: str = '') -> Manifest:
    """The manifest of a folder that ``tool`` may write to, of no files where there is none yet.

    Args:
        out: An output folder; it is not made yet.
        tool: Who asks.
        source: What the files are to be made from; '' where a folder takes them from anywhere.

    Raises:
        FileExistsError: ``out`` is a file, or holds what ``tool`` did not make, or made from
            something else.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> claim(out, 'report').files
        {}
        >>> _ = (out / 'thesis.tex').write_text('mine')
        >>> claim(out, 'report')
        Traceback (most recent call last):
        FileExistsError: ... has thesis.tex, which report did not make. Name another folder
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out} is a file. Name a folder')
    # A kill may leave the beginning of the manifest itself, under its temporary name.
    names = sorted(p.name for p in out.glob('*') if not p.match(f'.{MANIFEST}.*.tmp'))
    if not names:
        return Manifest(tool, source)
    manifest = read_manifest(out)
    if manifest is None:
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        raise FileExistsError(
            f'{out} has {", ".join(names[:3])}{more}, which {tool} did not make. '
            'Name another folder'
        )
    if manifest.tool != tool:
        raise FileExistsError(f'{out} was made by {manifest.tool}, not {tool}. Name another folder')
    if manifest.source != source:
        raise FileExistsError(
            f'{out} was made from {manifest.source}, not from {source}. Name another folder, or '
            'remove it'
        )
    return manifest


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder; before the files, so that a killed tool knows its own."""
    text = json.dumps({'format': FORMAT, **manifest._asdict()}, indent=0)
    write_atomically(out / MANIFEST, text.encode())


def write_files(out: Path, tool: str, contents: dict[str, bytes]) -> None:
    """Write all files of a folder, and remove those of an earlier call that are not among them.

    Raises:
        FileExistsError: As :func:`claim`; or a file to be written has been there before ``tool``,
            or has been changed since. Nothing is written then.
    """
    known = claim(out, tool).files
    made = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    for name, digest in made.items():
        if (out / name).exists() and _digest(out / name) not in (*known.get(name, ()), digest):
            raise FileExistsError(
                f'{out / name} is not as {tool} left it, if it made it at all. Move it away, or '
                'name another folder'
            )
    # Both, until all is written: a call that is killed leaves some of either.
    both = {name: [*known.get(name, ())] for name in {**known, **made}}
    for name, digest in made.items():
        both[name].append(digest)
    write_manifest(out, Manifest(tool, files=both))
    for name, content in contents.items():
        write_atomically(out / name, content)
    for name in known.keys() - made.keys():
        if (out / name).is_file() and _digest(out / name) in known[name]:
            (out / name).unlink()
    write_manifest(out, Manifest(tool, files={name: [digest] for name, digest in made.items()}))


@contextmanager
def whole_folder(out: Path, tool: str, source: str) -> Iterator[tuple[Path, Manifest]]:
    """Make a folder that exists under its name only once it is complete.

    The block writes into ``OUT.partial``, which becomes ``OUT`` when the block ends without an
    exception. After a killed run the same block finds the files that it had finished there.

    Yields:
        ``OUT.partial`` and its manifest.

    Raises:
        FileExistsError: ``out`` has something in it, or ``OUT.partial`` something that ``tool``
            did not make from ``source``.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / 'tree'
        >>> with whole_folder(out, 'an example', 'nothing') as (folder, _):
        ...     write_atomically(folder / 'a.txt', b'')
        ...     out.exists()
        False
        >>> out.exists()
        True
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f'{out} exists already. Name another folder')
    partial = out.with_name(f'{out.name}.partial')
    manifest = claim(partial, tool, source)
    if not (partial / MANIFEST).is_file():
        write_manifest(partial, manifest)
    yield partial, manifest
    os.replace(partial, out)


def is_complete(out: Path, tool: str, source: str) -> bool:
    """Whether ``out`` is what :func:`whole_folder` makes; False where there is nothing yet.

    Raises:
        FileExistsError: As :func:`claim`; or a file of the folder is missing.
    """
    manifest = claim(out, tool, source)
    missing = [name for name in manifest.files if not (out / name).is_file()]
    if missing:
        raise FileExistsError(
            f'{out} lacks {len(missing)} of its {len(manifest.files)} files; the first is '
            f'{missing[0]}. Remove it to make it again'
        )
    return (out / MANIFEST).is_file()


def read_manifest(out: Path) -> Manifest | None:
    """None where the folder has no manifest, or one that no tool of ours wrote."""
    try:
        values = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        if values.pop('format') != FORMAT:
            return None
        manifest = Manifest(**values)
        names = [name for name, known in manifest.files.items() if isinstance(known, list)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    # Of a folder that somebody else has made up, nothing outside is touched.
    root = out.resolve()
    inside = all(root in (out / name).resolve().parents for name in names)
    return manifest if inside and len(names) == len(manifest.files) else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'a folder'
