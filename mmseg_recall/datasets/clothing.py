"""Clothing Co-Parsing: photographs of street fashion."""

from __future__ import annotations

from typing import ClassVar

from mmseg.registry import DATASETS

from .checked import CheckedSegDataset


@DATASETS.register_module()
class ClothingDataset(CheckedSegDataset):
    """Clothing Co-Parsing in mmseg's layout: JPEG images, 8-bit labels 0-58.

    Example:
        >>> len(ClothingDataset(lazy_init=True).metainfo['classes'])
        59

    Source: Yang, Luo, Lin, "Clothing Co-Parsing by Joint Image Segmentation and Labeling".
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            *('background', 'accessories', 'bag', 'belt', 'blazer', 'blouse', 'bodysuit', 'boots'),
            *('bra', 'bracelet', 'cape', 'cardigan', 'clogs', 'coat', 'dress', 'earrings', 'flats'),
            *('glasses', 'gloves', 'hair', 'hat', 'heels', 'hoodie', 'intimate', 'jacket', 'jeans'),
            *('jumper', 'leggings', 'loafers', 'necklace', 'panties', 'pants', 'pumps', 'purse'),
            *('ring', 'romper', 'sandals', 'scarf', 'shirt', 'shoes', 'shorts', 'skin', 'skirt'),
            *('sneakers', 'socks', 'stockings', 'suit', 'sunglasses', 'sweater', 'sweatshirt'),
            *('swimwear', 't-shirt', 'tie', 'tights', 'top', 'vest', 'wallet', 'watch', 'wedges'),
        )
    )
