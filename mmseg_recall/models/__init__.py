"""What surrounds a loss in mmseg."""

from .fused_head import FusedTail, fuse_tails
from .loss_runner import LossRunner, swap_loss

__all__ = ['FusedTail', 'LossRunner', 'fuse_tails', 'swap_loss']
