"""Read a dataset as training will see it: one path for the check, the counts and the diagnosis."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import Compose, KeyMapper, LoadImageFromFile, RandomApply, RandomChoice
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from ..files import image_header, unreadable
from .parallel import parallel_map

IGNORED = 255
"""What mmseg's datasets and heads ignore, unless told otherwise."""
WRAPPERS = Compose, KeyMapper, RandomApply, RandomChoice
STOCK = 'mmcv', 'mmengine', 'mmseg', 'torch'
FORMATS = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
"""How files begin that can be known to be whole: PNG and JPEG."""


class NotJudged(ValueError):
    """What training may read all the same."""


class Item(NamedTuple):
    """One item of a dataset, with the transforms that load it and that may change its ids."""

    dataset: Any
    position: int
    transforms: tuple[Any, ...]

    @property
    def info(self) -> dict[str, Any]:
        """What the dataset knows of the item; none where it keeps that to itself."""
        known = getattr(self.dataset, 'get_data_info', None)
        return known(self.position) if known else {}

    @property
    def paths(self) -> dict[str, str]:
        """The files that it names, such as ``img_path`` and ``seg_map_path``."""
        return {k: v for k, v in self.info.items() if 'path' in k and isinstance(v, str)}

    @property
    def name(self) -> str:
        """What a message calls its label."""
        unnamed = f'item {self.position} of {type(self.dataset).__name__}'
        return self.paths.get('seg_map_path') or self.paths.get('img_path') or unnamed


class ClassCount(NamedTuple):
    """What the labels of a dataset hold, with repetitions by wrappers."""

    classes: list[str]
    pixels: np.ndarray
    """Of each class, int64, (C,)."""
    images: np.ndarray
    """That show each class, int64, (C,)."""
    items: int
    """Of one epoch."""
    others: dict[int, int]
    """Pixels of each id that is no class: of ``ignore_index``."""
    reduced: bool = False
    """Whether ``reduce_zero_label`` is set."""

    @property
    def warnings(self) -> list[str]:
        """What is to be said of classes without a pixel, with the usual reason."""
        absent = [f'{name!r} ({c})' for c, name in enumerate(self.classes) if self.pixels[c] == 0]
        if not absent:
            return []
        message = f'no label has a pixel of {", ".join(absent)}, which cannot be learnt'
        present = set(np.flatnonzero(self.pixels).tolist())
        if self.reduced and len(present) < 2:
            message += (
                '. reduce_zero_label turns 0 into 255, which is ignored, and 1 into 0: set it to '
                'False where 0 is a class'
            )
        elif present <= {0} and self.others:
            message += (
                f'. The labels hold {sorted({*present, *self.others})} only, and '
                f'{sorted(self.others)} is ignored: masks of 0 and 255 must be mapped to 0 and 1'
            )
        elif self.pixels[0] == 0 and len(absent) == 1:
            message += '. If the ids of the labels begin at 1, set reduce_zero_label=True'
        return [message]


def leaf_datasets(dataset: Any) -> list[Any]:
    """The datasets inside wrappers, in order."""
    if hasattr(dataset, 'datasets'):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return leaf_datasets(dataset.dataset) if hasattr(dataset, 'dataset') else [dataset]


def items(dataset: Any, outer: Sequence[Any] = ()) -> list[Item]:
    """List what one epoch of a dataset reads, in order, repetitions included.

    Raises:
        NotJudged: It has no length.
    """
    if not hasattr(dataset, '__len__'):
        raise NotJudged(f'{type(dataset).__name__} has no length')
    if not _is_loaded_byparts_of(dataset):
        return [Item(dataset, index, ()) for index in range(len(dataset))]
    if hasattr(dataset, 'datasets'):
        return [item for part in dataset.datasets for item in items(part, outer)]
    if hasattr(dataset, 'dataset'):
        inner = items(dataset.dataset, [*_transforms(dataset), *outer])
        # ClassBalancedDataset and torch's Subset list what they draw, RepeatDataset how often.
        drawn = getattr(dataset, 'repeat_indices', getattr(dataset, 'indices', range(len(inner))))
        return [inner[index] for index in drawn] * getattr(dataset, 'times', 1)
    used = tuple(filter(_may_change_ids, [*_transforms(dataset), *outer]))
    return [Item(dataset, index, used) for index in range(len(dataset))]


def class_names(dataset: Any) -> list[str]:
    """Names of the classes; of several datasets, those of the one with most.

    Raises:
        NotJudged: It names none.
    """
    parts = [dataset, *leaf_datasets(dataset)]
    names = max((list(_meta(part).get('classes') or ()) for part in parts), key=len)
    if not names:
        raise NotJudged(f'{type(dataset).__name__} names no classes; give it metainfo.classes')
    return names


def read_label(item: Item) -> np.ndarray:
    """Load one label by the pipeline of its dataset, up to what changes ids.

    Transforms of mmcv and mmseg that load nothing keep the ids, and are left out; those of a user
    are run.

    Returns:
        Ids, integer, mostly (height, width).

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: It cannot be loaded, or its size is not that of its image.
        NotJudged: The item has no label.
    """
    for path in item.paths.values():
        _check_whole(path, item)
    step, results = item.dataset, item.info
    try:
        for step in item.transforms:
            results = step(results)
        if not item.transforms:
            results = item.dataset[item.position]
    except Exception as error:
        raise _with_the_file(error, step, item) from error
    label = label_of(results or {})
    if label is None:
        names = {type(part).__name__ for step in item.transforms for part in parts_of(step)}
        if names and names <= {'LoadImageFromFile'}:
            raise ValueError(
                f"The pipeline of {type(item.dataset).__name__} has no 'LoadAnnotations'"
            )
        raise NotJudged(f'{item.name} has no label')
    if label.ndim == 2 and all(map(_loads, item.transforms)):
        height, width = results.get('img_shape', label.shape)[:2]
        if label.shape != (height, width):
            raise ValueError(
                f'{item.name}: the label is {label.shape[1]}x{label.shape[0]} pixels, and its '
                f'image {width}x{height}'
            )
    for transform in item.transforms:
        if type(transform) is LoadAnnotations:
            _refuse_cut(item, label, transform)
    return label.astype(np.int64) if label.dtype.kind not in 'iu' else label


def read_ids(item: Item) -> dict[int, int]:
    """Pixels of each id in a label, all of them classes or ``ignore_index``.

    Raises:
        ValueError: Other ids; see :func:`read_label`.
    """
    found = count_ids(read_label(item))
    classes = _meta(item.dataset).get('classes') or ()
    ignored = ignore_index(item.dataset)
    unknown = [id_ for id_ in found if not 0 <= id_ < len(classes) and id_ != ignored]
    if classes and unknown:
        raise ValueError(
            f'{item.name}: unknown ids {unknown}; the dataset has classes 0 to '
            f'{len(classes) - 1} and ignores {ignored}'
        )
    return found


def count_ids(label: np.ndarray) -> dict[int, int]:
    """Pixels of each id in a label.

    Example:
        >>> count_ids(np.array([[0, 255], [0, 3]]))
        {0: 2, 3: 1, 255: 1}
    """
    if label.dtype == np.uint8:
        counts = np.bincount(label.ravel())
        return {int(id_): int(counts[id_]) for id_ in np.flatnonzero(counts)}
    ids, numbers = np.unique(label, return_counts=True)
    return dict(zip(ids.tolist(), numbers.tolist(), strict=True))


def ignore_index(dataset: Any) -> int:
    """The id that a dataset ignores."""
    return getattr(dataset, 'ignore_index', IGNORED)


def count_classes(dataset: Any, description: str = 'Reading labels') -> ClassCount:
    """Count classes in a dataset as training will see its labels, before crops and the like.

    Every file is read, by threads: an own loader need not be picklable, nor a script have a main
    guard. An item that a wrapper repeats is read once and counted as often as it is drawn.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The first file that is damaged, of another size than its image, or with unknown
            ids; or there is none.
        NotJudged: The dataset does not show its labels.
    """
    distinct, times = distinct_items(dataset)
    found = parallel_map(read_ids, distinct, description, threads=True)
    return tally(dataset, distinct, times, found)


def distinct_items(dataset: Any) -> tuple[list[Item], list[int]]:
    """The items of a dataset without repetitions, and how often an epoch draws each.

    Raises:
        ValueError: There is none.
    """
    first: dict[tuple[int, int], Item] = {}
    times: dict[tuple[int, int], int] = {}
    for item in items(dataset):
        key = id(item.dataset), item.position
        first.setdefault(key, item)
        times[key] = times.get(key, 0) + 1
    if not first:
        raise ValueError(f'{type(dataset).__name__} has no images')
    return list(first.values()), list(times.values())


def tally(
    dataset: Any,
    distinct: Iterable[Item],
    times: Iterable[int],
    found: Iterable[dict[int, int] | None],
) -> ClassCount:
    """Sum up the ids found in each item; None, of one that cannot be read, is left out.

    Raises:
        NotJudged: The dataset names no classes.
    """
    names = class_names(dataset)
    pixels, images = np.zeros((2, len(names)), np.int64)
    others: dict[int, int] = {}
    total = 0
    for item, often, ids in zip(distinct, times, found, strict=True):
        total += often
        for id_, number in (ids or {}).items():
            if id_ == ignore_index(item.dataset) or not 0 <= id_ < len(names):
                others[id_] = others.get(id_, 0) + often * number
            else:
                pixels[id_] += often * number
                images[id_] += often
    reduced = any(getattr(leaf, 'reduce_zero_label', False) for leaf in leaf_datasets(dataset))
    return ClassCount(names, pixels, images, total, others, reduced)


def fingerprint(dataset: Any) -> str:
    """What tells whether the files of a dataset, and how it reads them, are still the same.

    Returns:
        A digest of the names, sizes and modification times of the files; of files that are missing
        or in remote storage, which has no such times, another one each time.
    """
    digest = hashlib.sha256()
    for item in items(dataset):
        described = {k: v for k, v in item.info.items() if k != 'sample_idx'}
        states = [_state(path) for path in item.paths.values()] or [os.urandom(16)]
        read = item.transforms, _meta(item.dataset).get('classes'), ignore_index(item.dataset)
        digest.update(repr((described, states, read)).encode())
    return digest.hexdigest()


def _meta(dataset: Any) -> dict[str, Any]:
    return getattr(dataset, 'metainfo', None) or {}


def _is_loaded_byparts_of(dataset: Any) -> bool:
    """Whether what an item is follows from its info and the pipeline."""
    methods = (getattr(type(dataset), name, None) for name in ('__getitem__', 'prepare_data'))
    stock = all(_is_stock(method) for method in methods if method is not None)
    wraps = hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets')
    return stock and (wraps or hasattr(dataset, 'get_data_info'))


def _transforms(dataset: Any) -> list[Any]:
    pipeline = getattr(dataset, 'pipeline', None) or []
    return list(getattr(pipeline, 'transforms', pipeline))


def parts_of(transform: Any) -> Iterator[Any]:
    """A transform, or those inside a wrapper of mmcv."""
    if isinstance(transform, WRAPPERS):
        for part in transform.transforms:
            yield from parts_of(part)
    else:
        yield transform


def _is_stock(defined: Any) -> bool:
    return defined.__module__.split('.')[0] in STOCK


def _loads(transform: Any) -> bool:
    return all('Load' in type(part).__name__ for part in parts_of(transform))


def _may_change_ids(transform: Any) -> bool:
    return any(
        not _is_stock(type(part)) or 'Load' in type(part).__name__ for part in parts_of(transform)
    )


def label_of(results: Any) -> np.ndarray | None:
    if 'gt_seg_map' in results:
        return np.asarray(results['gt_seg_map'])
    sample = results.get('data_samples')
    if sample is None or 'gt_sem_seg' not in sample:
        return None
    return sample.gt_sem_seg.data.squeeze(0).cpu().numpy()


def _check_whole(path: str, item: Item) -> None:
    try:
        data = fileio.get(path, backend_args=_backend(item))
    except OSError:
        return  # the pipeline will show whether it needs it
    if not data:
        raise ValueError(f'{path}: the file is empty (0 bytes); get or convert it again')
    if data.startswith(FORMATS):
        try:
            image_header(data, path)
        except ValueError as error:
            # Pillow refuses to open large images; the pipeline will show whether they can be read.
            if not isinstance(error.__cause__, Image.DecompressionBombError):
                raise


def _backend(item: Item) -> dict[str, Any] | None:
    return next((t.backend_args for t in item.transforms if hasattr(t, 'backend_args')), None)


def _with_the_file(error: Exception, step: Any, item: Item) -> Exception:
    if isinstance(error, OSError) and isinstance(path := error.filename, str):
        if not isinstance(error, FileNotFoundError):
            return unreadable(path, error)
        image = item.paths.get('img_path')
        what = 'The image is' if path == image else f'The label of {image} is'
        return FileNotFoundError(f'{what} missing: {path}')
    loads_the_image = isinstance(step, LoadImageFromFile)
    path = item.paths.get('img_path', item.name) if loads_the_image else item.name
    return ValueError(
        f'{path}: {type(step).__name__} cannot load it, damaged or not what it reads '
        f'({type(error).__name__}: {error!s:.200})'
    )


def _refuse_cut(item: Item, label: np.ndarray, loader: LoadAnnotations) -> None:
    """mmseg's own loader takes all channels, and the last 8 bits of larger numbers."""
    if label.ndim != 2:
        raise ValueError(
            f'{item.name}: expected single-channel ids, not {label.shape[-1]} channels; map '
            'colours to ids first, or by an own loader'
        )
    data = fileio.get(item.paths['seg_map_path'], backend_args=loader.backend_args)
    if data.startswith(FORMATS[0]) and data[24] <= 8:  # the bits of a PNG
        return
    raw = mmcv.imfrombytes(data, flag='unchanged', backend=loader.imdecode_backend)
    if raw.dtype != np.uint8 and raw.max() > 255:
        raise ValueError(
            f'{item.name}: expected 8-bit single-channel ids, and found {raw.max()}, of which '
            'LoadAnnotations keeps the last 8 bits'
        )


def _state(path: str) -> tuple[int, int] | bytes:
    try:
        state = os.stat(path)
    except OSError:
        return os.urandom(16)
    return state.st_size, state.st_mtime_ns
