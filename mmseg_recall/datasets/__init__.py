"""Datasets, the converters that make them, and the statistics that the losses read."""

from .camvid import CamVidDataset
from .class_balanced_crops import ClassBalancedCrops, CropAroundClass
from .replayed_sampler import ReplayedInfiniteSampler
from .synthia import SynthiaSeqsDataset
from .virtual_kitti import VirtualKitti2Dataset

__all__ = [
    'CamVidDataset',
    'ClassBalancedCrops',
    'CropAroundClass',
    'ReplayedInfiniteSampler',
    'SynthiaSeqsDataset',
    'VirtualKitti2Dataset',
]
