"""Datasets, the converters that make them, and the statistics that the losses read."""

from .camvid import CamVidDataset
from .synthia import SynthiaSeqsDataset
from .virtual_kitti import VirtualKitti2Dataset

__all__ = ['CamVidDataset', 'SynthiaSeqsDataset', 'VirtualKitti2Dataset']
