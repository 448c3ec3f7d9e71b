"""What every converter does: pairs of raw files in, a whole tree in mmseg's layout out.

The converter of a dataset is a module ``convert_NAME.py`` of this package with two functions:
``find_pairs``, which lists what is to be converted, and ``read_raw_label``, which reads a label as
class ids.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import cv2
import numpy as np

from ..files import image_header, link_or_copy, read_whole, write_atomically
from ..out_folder import MANIFEST, Manifest, is_complete, whole_folder, write_manifest
from .parallel import parallel_map


class Pair(NamedTuple):
    """A raw image with its raw label, and where they go.

    The image goes to ``images/SPLIT/NAME``, which ends in ``.png`` or as the raw image does, the
    label to ``annotations/SPLIT`` under the same name with the suffix ``.png``.
    """

    raw_image: Path
    raw_label: Path
    split: str
    name: str

    def converted(self, folder: Path) -> tuple[Path, Path]:
        """Paths of the converted image and label in ``folder``."""
        label = folder / 'annotations' / self.split / self.name
        return folder / 'images' / self.split / self.name, label.with_suffix('.png')


def layout_of(raw: Path, layouts: Mapping[str, tuple[str, str]], name: str) -> tuple[str, str]:
    """Folders of images and labels, by the first folder of ``layouts`` that exists in ``raw``."""
    for marker, layout in layouts.items():
        if (raw / marker).is_dir():
            return layout
    raise FileNotFoundError(f'No {name} in {raw}: none of its folders {list(layouts)} exists')


def decoded(path: Path, kind: str, dtype: type, channels: Sequence[int]) -> np.ndarray:
    """A whole PNG in OpenCV's channel order; ValueError where it is of another kind."""
    data = read_whole(path)
    image_header(data, path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != dtype or pixels.shape[2:] not in [(n,) for n in channels]:
        found = 'nothing' if pixels is None else f'{pixels.dtype} of shape {pixels.shape}'
        raise ValueError(f'{path}: expected {kind} PNG, and decoded {found}')
    return pixels


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Split the frames of one view as the authors do.

    The names are sorted, shuffled with seed 0, and cut: the first 70% are for training, the next
    10% for validation, the rest for testing. The authors shuffle what ``glob`` returns, whose
    order depends on the file system; sorting first makes the split the same everywhere.

    Returns:
        Lists of names under ``'train'``, ``'val'`` and ``'test'``.

    Example:
        >>> split = split_names(f'{i:06d}.png' for i in range(787))
        >>> [len(split[name]) for name in ('train', 'val', 'test')]
        [550, 78, 159]

    Source: the authors' loaders of SYNTHIA (8 views of 787 frames give the paper's 4400/624/1272)
    and of Virtual KITTI 2.
    """
    names = sorted(names)
    random.Random(0).shuffle(names)
    train, val = int(0.7 * len(names)), int(0.1 * len(names))
    return {'train': names[:train], 'val': names[train : train + val], 'test': names[train + val :]}


def converters() -> list[str]:
    """Names of the datasets that have a converter.

    Example:
        >>> converters()
        ['camvid', 'synthia', 'virtual-kitti']
    """
    modules = iter_modules([str(Path(__file__).parent)])
    found = (m.name.removeprefix('convert_') for m in modules if m.name.startswith('convert_'))
    return sorted(name.replace('_', '-') for name in found)


def convert_dataset(name: str, raw: str | Path, out: str | Path) -> None:
    """Convert all pairs of ``raw`` into ``out/{images,annotations}/SPLIT``, on all cores.

    Images whose new name keeps their suffix are hard-linked where the file system allows and
    copied where not; others are stored as PNG. ``out`` appears under its name only when it is
    complete, and a killed run is completed by running it again: what it had made from raw files
    that have changed since is made anew. Where ``out`` is complete, nothing is done.

    Raises:
        FileNotFoundError: An image has no label, or a label no image; raised before anything is
            written.
        ValueError: A file cannot be read, is damaged, of the wrong kind or size, or has an unknown
            id; or there is no such converter.
        FileExistsError: ``out`` or ``out.partial`` has something in it that was not made from
            ``raw``.
        OSError: A file cannot be written, for want of space, say.
    """
    if name not in converters():
        raise ValueError(f'no converter of {name!r}; there are those of {converters()}')
    converter = import_module(f'.convert_{name.replace("-", "_")}', __package__)
    raw, tool = Path(raw), f'the converter of {name}'
    source = str(raw.resolve())
    if is_complete(Path(out), tool, source):
        return
    pairs = converter.find_pairs(raw)
    _refuse_unpaired(pairs)
    with whole_folder(Path(out), tool, source) as (folder, manifest):
        states = _remove_outdated(pairs, folder, manifest)
        write_manifest(folder, Manifest(tool, source, states))
        convert = partial(_convert_pair, read_label=converter.read_raw_label, folder=folder)
        for _ in parallel_map(convert, pairs, f'Converting {name}'):
            pass
        _refuse_strays(folder, states)


def _remove_outdated(
    pairs: Sequence[Pair], folder: Path, manifest: Manifest
) -> dict[str, list[str]]:
    """Remove what was made from raw files that are others now; the states of those there are."""
    states = {}
    for pair in pairs:
        raw_files = pair.raw_image, pair.raw_label
        for path, raw in zip(pair.converted(folder), raw_files, strict=True):
            name = path.relative_to(folder).as_posix()
            states[name] = [_state(raw)]
            linked = path.exists() and raw.exists() and path.samefile(raw)
            if manifest.files.get(name) != states[name] and not linked:
                path.unlink(missing_ok=True)
    for name in manifest.files.keys() - states.keys():
        (folder / name).unlink(missing_ok=True)
    return states


def _state(path: Path) -> str:
    """What changes when another file takes the place of this one, even of the same time."""
    try:
        state = path.stat()
    except OSError:
        return 'unreadable'
    times = f'{state.st_mtime_ns}:{state.st_ctime_ns}'
    return f'{state.st_dev}:{state.st_ino}:{state.st_size}:{times}'


def _refuse_strays(folder: Path, states: dict[str, list[str]]) -> None:
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder)
        begun = re.fullmatch(r'\.(.+)\.\d+\.tmp', path.name)
        if begun and name.with_name(begun[1]).as_posix() in {*states, MANIFEST}:
            path.unlink()  # the beginning of a file, of a killed run
        elif path.is_file() and name.as_posix() not in {*states, MANIFEST}:
            raise FileExistsError(f'{path} is not of this conversion. Move it away')


def _refuse_unpaired(pairs: Sequence[Pair]) -> None:
    missing = [pair for pair in pairs if not pair.raw_label.exists()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(pairs)} images have no label; the first is '
            f'{missing[0].raw_image}, whose label should be {missing[0].raw_label}'
        )
    # An image that was lost would not only be left out: every split is drawn from the list.
    labels = {pair.raw_label for pair in pairs}
    folders = {(label.parent, label.suffix) for label in labels}
    found = {path for folder, suffix in folders for path in folder.glob(f'[!.]*{suffix}')}
    unpaired = sorted(found - labels)
    if unpaired:
        raise FileNotFoundError(
            f'{len(unpaired)} of {len(found)} labels have no image; the first is {unpaired[0]}. '
            'Get the images again, or remove the labels'
        )


def _convert_pair(pair: Pair, read_label: Callable[[Path], np.ndarray], folder: Path) -> None:
    image, label = pair.converted(folder)
    if image.exists() and label.exists():
        return
    data = read_whole(pair.raw_image)
    (width, height), _ = image_header(data, pair.raw_image)
    ids = read_label(pair.raw_label)
    if ids.shape != (height, width):
        raise ValueError(
            f'{pair.raw_label}: the label is {ids.shape[1]}x{ids.shape[0]} pixels, '
            f'and its image {width}x{height}'
        )
    write_atomically(label, encode_png(ids))
    if pair.raw_image.suffix == image.suffix:
        link_or_copy(pair.raw_image, image)
    else:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f'{pair.raw_image}: OpenCV cannot decode it')
        write_atomically(image, encode_png(pixels))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an array (OpenCV's channel order) as a PNG file."""
    _, data = cv2.imencode('.png', pixels)
    return data.tobytes()
