"""Long-tailed data sets in mmpretrain's registry."""

from .digits import DigitsDataset
from .elpv import ELPVDataset
from .inaturalist import INaturalist2018Dataset
from .long_tailed import LongTailedDataset, long_tail
from .places_lt import PlacesLTDataset

__all__ = [
    'DigitsDataset',
    'ELPVDataset',
    'INaturalist2018Dataset',
    'LongTailedDataset',
    'PlacesLTDataset',
    'long_tail',
]
