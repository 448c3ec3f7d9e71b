"""What surrounds a loss in mmseg."""

from .fused_head import FusedTail, fuse_tails
from .logit_adjustment import LogitAdjusted, adjust_logits
from .loss_runner import LossRunner, swap_loss

__all__ = [
    'FusedTail',
    'LogitAdjusted',
    'LossRunner',
    'adjust_logits',
    'fuse_tails',
    'swap_loss',
]
