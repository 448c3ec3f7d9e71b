"""Solar cells of ELPV, split, and turned into feature maps that train in seconds on a CPU."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from rich.console import Console
from rich.progress import track

from ...files import read_whole, write_atomically

GRADES = ('functional', 'possibly', 'likely', 'defective')
"""By the probability of a defect: 0, 1/3, 2/3, 1."""
CLASSES = (
    *('poly functional', 'mono functional', 'poly defective', 'mono defective'),
    *('poly possibly', 'mono possibly', 'mono likely', 'poly likely'),
)
"""The most frequent first: 920, 588, 402, 313, 178, 117, 56 and 50 photographs."""
HELD_OUT = {'test': 25, 'val': 10}
"""Photographs of each class; the others are the training set."""
SIZE = 128
BATCH = 64


@DATASETS.register_module()
class ELPVDataset(BaseDataset):
    """Solar cells in electroluminescence images: 8 classes, 885 to 15 training images.

    Four grades of defect times two kinds of cell. The pipeline gets a feature map of
    :func:`convert_elpv`, (8, 8, 112), as ``img``.

    Args:
        ann_file: ``train.npz``, ``val.npz`` or ``test.npz``, below ``data_root`` unless it is
            absolute.
        kwargs: Of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged, or none of feature maps; names it.

    Example:
        >>> ELPVDataset(ann_file='train.npz', lazy_init=True).metainfo['classes'][0]
        'poly functional'

    Source: see :func:`convert_elpv`.
    """

    METAINFO: ClassVar[dict] = dict(classes=CLASSES)

    def load_data_list(self) -> list[dict]:
        try:
            with np.load(io.BytesIO(read_whole(Path(self.ann_file)))) as file:
                features, labels = file['features'], file['labels']
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{self.ann_file}: damaged, or no feature maps ({error}); make it again with '
                'tools/classification/convert_elpv.py'
            ) from error
        return [
            dict(img=feature, gt_label=int(label))
            for feature, label in zip(features, labels, strict=True)
        ]


def read_labels(path: Path) -> Iterator[tuple[str, int]]:
    """Each photograph's file name and class, of ``labels.csv``.

    Its rows are a path, the probability of a defect and the kind of cell ('mono' or 'poly'),
    separated by commas or spaces; a first row of names is passed over.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: A malformed row; names file and line.
    """
    for number, line in enumerate(read_whole(path).decode(errors='replace').splitlines(), start=1):
        fields = re.split(r'[,\s]+', line.strip())
        if number == 1 and len(fields) == 3 and not re.match(r'[\d.]', fields[1]):
            continue
        try:
            image, probability, kind = fields
            label = CLASSES.index(f'{kind} {GRADES[round(3 * float(probability))]}')
        except (ValueError, IndexError):
            raise ValueError(
                f'{path}, line {number}: expected "IMAGE PROBABILITY mono|poly", got {line!r:.100}'
            ) from None
        yield Path(image).name, label


def split(labels: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Indices of each split: as many photographs of each class for test and validation.

    Cells of one module may be on both sides: the data set does not say which belong together.

    Example:
        >>> parts = split(np.repeat([0, 1], [40, 36]))
        >>> {name: len(indices) for name, indices in parts.items()}
        {'test': 50, 'val': 20, 'train': 6}
    """
    generator = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*HELD_OUT, 'train')}
    bounds = np.cumsum(list(HELD_OUT.values()))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        for name, part in zip(parts, np.split(members, bounds), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(chosen)) for name, chosen in parts.items()}


def convert_elpv(raw: Path, weights: Path, out: Path) -> None:
    """Write ``train.npz``, ``val.npz`` and ``test.npz`` of feature maps.

    The maps are those of stage 4 of EfficientNet-Lite0 with ImageNet weights, (8, 8, 112) of a
    photograph of 128 x 128 pixels, in float16.

    Args:
        raw: Folder with ``labels.csv`` and ``images``.
        weights: What ``tools/model_converters/efficientnet_lite0.py`` writes.
        out: Folder of the results.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A malformed row of ``labels.csv``, an image that cannot be read, or other
            weights; names the file.

    Source: Buerhop-Lutz et al. 2018, "A Benchmark for Visual Identification of Defective Solar
    Cells in Electroluminescence Imagery"; Deitsch et al. 2019.
    """
    rows = list(read_labels(raw / 'labels.csv'))
    labels = np.array([label for _, label in rows])
    backbone = frozen_backbone(weights)
    maps = []
    with torch.inference_mode():
        starts = range(0, len(rows), BATCH)
        for start in track(starts, 'Feature maps', console=Console(stderr=True)):
            batch = [_photograph(raw / 'images' / name) for name, _ in rows[start : start + BATCH]]
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
            (feature,) = backbone(pixels.float() / 127.5 - 1)
            maps.append(feature.permute(0, 2, 3, 1).half().numpy())
    features = np.concatenate(maps)
    for name, chosen in split(labels).items():
        file = io.BytesIO()
        np.savez(file, features=features[chosen], labels=labels[chosen])
        write_atomically(out / f'{name}.npz', file.getvalue())


def frozen_backbone(weights: Path) -> torch.nn.Module:
    """The first four stages of EfficientNet-Lite0, for inference."""
    backbone = MODELS.build(
        dict(
            type='TIMMBackbone', model_name='tf_efficientnet_lite0', features_only=True,
            pretrained=False, out_indices=(3,),
        )
    )  # fmt: skip
    read_whole(weights)
    state_dict = torch.load(weights, map_location='cpu', weights_only=True)['state_dict']
    missing = backbone.load_state_dict(state_dict, strict=False).missing_keys
    if missing:
        raise ValueError(
            f'{weights}: not the weights of EfficientNet-Lite0, {missing[0]} is missing'
        )
    backbone.eval()
    return backbone


def _photograph(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert('RGB').resize((SIZE, SIZE)))
    except FileNotFoundError:
        raise FileNotFoundError(f'{path} is missing') from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path}: truncated, damaged or not an image ({error})') from error
