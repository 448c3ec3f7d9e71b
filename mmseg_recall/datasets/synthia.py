"""SYNTHIA-SEQS, as the paper trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset

SYNTHIA_IDS: dict[str, tuple[int, int, int]] = {
    'void': (0, 0, 0),
    'sky': (128, 128, 128),
    'building': (128, 0, 0),
    'road': (128, 64, 128),
    'sidewalk': (0, 0, 192),
    'fence': (64, 64, 128),
    'vegetation': (128, 128, 0),
    'pole': (192, 192, 128),
    'car': (64, 0, 128),
    'traffic sign': (192, 128, 128),
    'pedestrian': (64, 64, 0),
    'bicycle': (0, 128, 192),
    'lanemarking': (0, 172, 0),
    'reserved 13': (0, 0, 64),
    'reserved 14': (0, 64, 0),
    'traffic light': (0, 128, 128),
}
"""Name and RGB colour of each id in a SYNTHIA-SEQS label file, in the order of the ids."""

SYNTHIA_CLASSES: tuple[str, ...] = tuple(
    name for name in SYNTHIA_IDS if name != 'void' and not name.startswith('reserved')
)
"""The 13 real classes, in the order of their ids."""


@DATASETS.register_module()
class SynthiaSeqsDataset(CheckedSegDataset):
    """SYNTHIA-SEQS in mmseg's layout, with the raw ids 0-15 in 8-bit label files.

    The ids are mapped when a label is loaded, by mmseg's own ``label_map``, so that one converted
    tree serves both protocols:

    - ``'paper'``: the 13 classes that the paper's tables list, sky to traffic light; void and the
      reserved ids 13 and 14 become ``ignore_index`` 255.
    - ``'authors'``: the 16 ids as they are, void trained and scored as a class, which is what the
      authors' code does.

    Args:
        protocol: ``'paper'`` or ``'authors'``.
        img_suffix: Suffix of the image files.
        metainfo: As in mmseg; ``classes`` may name any of the 16 ids, in any order, and then
            takes precedence over ``protocol``.
        **kwargs: Arguments of :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        ValueError: Unknown protocol or class name.
        FileNotFoundError: No images, or an image without a label.

    Example:
        >>> data = SynthiaSeqsDataset(lazy_init=True)
        >>> len(data.metainfo['classes']), data.label_map[0], data.label_map[15]
        (13, 255, 12)
        >>> data = SynthiaSeqsDataset(protocol='authors', lazy_init=True)
        >>> len(data.metainfo['classes']), data.label_map[15]
        (16, 15)

    Source: "Striking the Right Balance: Recall Loss for Semantic Segmentation", experiments on
    Synthia; the ids are those of the data set's own description.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=SYNTHIA_CLASSES,
        palette=[list(SYNTHIA_IDS[name]) for name in SYNTHIA_CLASSES],
    )
    PROTOCOLS: ClassVar[dict[str, tuple[str, ...]]] = {
        'paper': SYNTHIA_CLASSES,
        'authors': tuple(SYNTHIA_IDS),
    }

    def __init__(
        self,
        protocol: str = 'paper',
        img_suffix: str = '.png',
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if protocol not in self.PROTOCOLS:
            raise ValueError(f'protocol must be one of {list(self.PROTOCOLS)}, not {protocol!r}')
        metainfo = {'classes': self.PROTOCOLS[protocol], **(metainfo or {})}
        super().__init__(img_suffix=img_suffix, metainfo=metainfo, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Map from the ids in the files to the indices of ``new_classes``, 255 for the others."""
        classes = list(SYNTHIA_CLASSES if new_classes is None else new_classes)
        unknown = [name for name in classes if name not in SYNTHIA_IDS]
        if unknown:
            raise ValueError(f'SYNTHIA has no classes {unknown}; it has {list(SYNTHIA_IDS)}')
        return {
            id_: classes.index(name) if name in classes else 255
            for id_, name in enumerate(SYNTHIA_IDS)
        }

    def _update_palette(self) -> list[list[int]]:
        # mmseg takes METAINFO['classes'] for the list of ids in the files, which are 16 here.
        return [list(SYNTHIA_IDS[name]) for name in self._metainfo['classes']]
