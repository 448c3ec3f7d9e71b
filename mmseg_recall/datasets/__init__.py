"""Datasets, the converters that make them, and the statistics that the losses read."""

from .camvid import CamVidDataset
from .synthia import SynthiaSeqsDataset

__all__ = ['CamVidDataset', 'SynthiaSeqsDataset']
