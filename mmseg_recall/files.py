"""Files that are whole or absent, and images that are known to be whole."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import ExifTags, Image


def read_whole(path: Path) -> bytes:
    """Contents of a file.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: There is something that cannot be read: a folder, a loop of symbolic links, a
            file without the permission, or on a failing disk.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f'{path} is missing') from None
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: OSError) -> ValueError:
    """What to raise where a file is there but the system cannot read it."""
    return ValueError(
        f'{path}: cannot be read ({error.strerror}); put the file in its place, or mend its '
        'permissions'
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written, even if the process is killed.

    Raises:
        OSError: It cannot be written (a full disk, say); names it. What was there before stays.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / 'a' / 'b.txt'
        >>> write_atomically(path, b'whole')
        >>> path.read_bytes()
        b'whole'
    """
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def link_or_copy(source: Path, path: Path) -> None:
    """Hard-link ``source`` at ``path``, or copy it where the file system cannot; atomic.

    Raises:
        OSError: As :func:`write_atomically`.
    """
    with _replacing(path) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copy2(source, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Another name to write ``path`` under, which takes its place when that is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and with another suffix: mmseg lists neither as an image. With the process, as two may
    # write the same file.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # A write that fails for want of space does not say where it was.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f'{error.strerror}; not written', str(path)) from error


def image_header(data: bytes, name: str | Path) -> tuple[tuple[int, int], str]:
    """Size and Pillow mode of an encoded image, after checking that the file is whole.

    A PNG is checked chunk by chunk (CRC) without decoding it, others are decoded. OpenCV decodes
    a truncated PNG without a word, so a file is never trusted to it unchecked.

    Args:
        data: The file's bytes.
        name: The file's name, for the error.

    Returns:
        ``(width, height)`` in pixels, after the turn that the EXIF data ask for, as image loaders
        make it; and the mode, such as ``'L'`` or ``'RGB'``.

    Raises:
        ValueError: The file is empty, truncated, damaged or no image.
    """
    if not data:
        raise ValueError(f'{name}: the file is empty (0 bytes); get or convert it again')
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == 'PNG':
                image.verify()
            else:
                image.load()
            return image.size[::-1] if _is_turned(image) else image.size, image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f'{name}: truncated, damaged or not an image ({error}); get or convert it again'
        ) from error


def _is_turned(image: Image.Image) -> bool:
    """Whether an image is to be shown by a quarter turn, by its EXIF orientation."""
    try:
        # Not the method of the format: a PNG's decodes the image.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data, of many types; those who decode the image pass over it
        return False
    return orientation in (5, 6, 7, 8)
