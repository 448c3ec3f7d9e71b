"""Datasets, the converters that make them, and the statistics that the losses read."""

from ..stack import check_stack

check_stack()

from .camvid import CamVidDataset  # noqa: E402
from .replayed_sampler import ReplayedInfiniteSampler  # noqa: E402
from .synthia import SynthiaSeqsDataset  # noqa: E402
from .virtual_kitti import VirtualKitti2Dataset  # noqa: E402

__all__ = [
    'CamVidDataset',
    'ReplayedInfiniteSampler',
    'SynthiaSeqsDataset',
    'VirtualKitti2Dataset',
]
