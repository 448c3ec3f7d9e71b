"""Read a dataset's labels as training will see them, check them and count their pixels."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from typing import NamedTuple

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations

from .files import image_header, unreadable
from .parallel import parallel_map


class LabelSource(NamedTuple):
    """One label of a dataset and how the dataset's own pipeline loads it."""

    image: str
    label: str
    label_map: tuple[tuple[int, int], ...] | None
    reduce_zero_label: bool
    loader: LoadAnnotations
    num_classes: int
    ignore_index: int
    oriented: bool  # whether the image is turned as its EXIF data ask for


def leaf_datasets(dataset) -> list:
    """The datasets inside mmengine's and mmseg's dataset wrappers.

    Args:
        dataset: A dataset or a wrapper of one or several.

    Returns:
        The datasets that have files, in order.
    """
    if hasattr(dataset, 'datasets'):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return leaf_datasets(dataset.dataset) if hasattr(dataset, 'dataset') else [dataset]


def label_sources(dataset) -> list[LabelSource]:
    """List the labels that one epoch of a dataset reads, in order, repetitions included.

    Args:
        dataset: An mmseg dataset, or mmengine's ``ConcatDataset``, ``RepeatDataset``,
            ``ClassBalancedDataset`` or mmseg's ``MultiImageMixDataset`` around one.

    Returns:
        One source for each item of the dataset.

    Raises:
        ValueError: The pipeline has no ``LoadAnnotations``, or the dataset no class names.
    """
    if hasattr(dataset, 'datasets'):
        return [source for part in dataset.datasets for source in label_sources(part)]
    if hasattr(dataset, 'dataset'):
        inner = label_sources(dataset.dataset)
        # ClassBalancedDataset lists the items that it draws, RepeatDataset says how often.
        drawn = getattr(dataset, 'repeat_indices', range(len(inner)))
        return [inner[index] for index in drawn] * getattr(dataset, 'times', 1)
    loaders = [t for t in dataset.pipeline.transforms if isinstance(t, LoadAnnotations)]
    if not loaders:
        raise ValueError(f"The pipeline of {type(dataset).__name__} has no 'LoadAnnotations'")
    if not dataset.metainfo.get('classes'):
        raise ValueError(f'{type(dataset).__name__} names no classes; give it metainfo.classes')
    oriented = any(map(_orients, dataset.pipeline.transforms))
    sources = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        label_map = info.get('label_map')
        sources.append(
            LabelSource(
                info['img_path'],
                info['seg_map_path'],
                None if label_map is None else tuple(label_map.items()),
                info['reduce_zero_label'],
                loaders[0],
                len(dataset.metainfo['classes']),
                dataset.ignore_index,
                oriented,
            )
        )
    return sources


def _orients(transform) -> bool:
    return (
        isinstance(transform, LoadImageFromFile)
        and transform.color_type in ('color', 'grayscale')
        # The other decoders of mmcv know nothing of EXIF.
        and transform.imdecode_backend in ('cv2', 'pillow')
    )


def read_label(source: LabelSource) -> np.ndarray:
    """Load one label as the pipeline does, after checking that the file is whole.

    Args:
        source: Which label.

    Returns:
        Class indices and ``ignore_index``, uint8, shape (height, width).

    Raises:
        FileNotFoundError: The label is missing.
        ValueError: The file is empty, damaged or of another kind, or has an id outside the
            classes that is not ``ignore_index``.
    """
    _, mode = image_header(_read(source.label, source), source.label)
    if mode not in ('L', 'P', '1'):
        raise ValueError(f'{source.label}: expected 8-bit single-channel ids, not mode {mode}')
    label = source.loader.transform(
        dict(
            seg_map_path=source.label,
            label_map=None if source.label_map is None else dict(source.label_map),
            reduce_zero_label=source.reduce_zero_label,
            seg_fields=[],
        )
    )['gt_seg_map']
    ids = np.flatnonzero(np.bincount(label.ravel()))
    unknown = ids[(ids >= source.num_classes) & (ids != source.ignore_index)]
    if unknown.size:
        raise ValueError(
            f'{source.label}: unknown ids {unknown.tolist()}; the dataset has classes 0 to '
            f'{source.num_classes - 1} and ignores {source.ignore_index}'
        )
    return label


def _read(path: str, source: LabelSource) -> bytes:
    try:
        return fileio.get(path, backend_args=source.loader.backend_args)
    except FileNotFoundError:
        what = 'The image is' if path == source.image else f'The label of {source.image} is'
        raise FileNotFoundError(f'{what} missing: {path}') from None
    except OSError as error:
        raise unreadable(path, error) from error


def count_label(source: LabelSource) -> np.ndarray:
    """Count the pixels of each class in one label.

    Args:
        source: Which label.

    Returns:
        Pixels of each class, int64, shape (C,); ignored pixels are in none.

    Raises:
        FileNotFoundError: See :func:`read_label`.
        ValueError: See :func:`read_label`.
    """
    label = read_label(source)
    counted = label[label != source.ignore_index]
    return np.bincount(counted, minlength=source.num_classes).astype(np.int64)


def count_pixels(dataset) -> np.ndarray:
    """Count the pixels of each class in a dataset, on all cores.

    Labels are counted at their own size, after the dataset's label mapping and before any
    augmentation. An item that a wrapper repeats is read once and counted as often as it is drawn.

    Args:
        dataset: See :func:`label_sources`.

    Returns:
        Pixels of each class, int64, shape (C,).

    Raises:
        FileNotFoundError: A label is missing.
        ValueError: A label is damaged or has unknown ids (names the file), or there is none.
    """
    drawn = Counter(label_sources(dataset))
    if not drawn:
        raise ValueError(f'{type(dataset).__name__} has no images')
    counts = parallel_map(count_label, list(drawn), 'Counting pixels')
    return sum(count * times for count, times in zip(counts, drawn.values(), strict=True))


def check_sample(source: LabelSource) -> None:
    """Check that an image and its label are whole, of one size, and without unknown ids.

    Args:
        source: Which label, and of which image.

    Raises:
        FileNotFoundError: The image or the label is missing.
        ValueError: Either is empty or damaged, their sizes differ, or see :func:`read_label`.
    """
    (width, height), _ = image_header(
        _read(source.image, source), source.image, oriented=source.oriented
    )
    label = read_label(source)
    if label.shape != (height, width):
        raise ValueError(
            f'{source.label}: the label is {label.shape[1]}x{label.shape[0]} pixels, '
            f'and its image {width}x{height}'
        )


def check_samples(dataset) -> None:
    """Check every image and label of a dataset, on all cores.

    Args:
        dataset: See :func:`label_sources`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: See :func:`check_sample`; names the file.
    """
    for _ in parallel_map(
        check_sample, list(dict.fromkeys(label_sources(dataset))), 'Checking data'
    ):
        pass


def fingerprint(dataset) -> str:
    """What tells whether the files of a dataset, and how it reads them, are still the same.

    Args:
        dataset: See :func:`label_sources`.

    Returns:
        A digest of the names, sizes and modification times of the files; of files that are missing
        or in remote storage, which has no such times, another one each time.
    """
    digest = hashlib.sha256()
    for source in dict.fromkeys(label_sources(dataset)):
        described = source._replace(loader=repr(source.loader))
        digest.update(repr((described, _state(source.image), _state(source.label))).encode())
    return digest.hexdigest()


def _state(path: str) -> tuple[int, int] | bytes:
    try:
        state = os.stat(path)
    except OSError:
        return os.urandom(16)
    return state.st_size, state.st_mtime_ns
