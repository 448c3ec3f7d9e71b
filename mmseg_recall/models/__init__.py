"""What surrounds a loss in mmseg."""

from ..stack import check_stack

check_stack()

from .fused_head import FusedTail, fuse_tails  # noqa: E402
from .logit_adjustment import LogitAdjusted, adjust_logits  # noqa: E402
from .loss_runner import LossRunner, swap_loss  # noqa: E402

__all__ = [
    'FusedTail',
    'LogitAdjusted',
    'LossRunner',
    'adjust_logits',
    'fuse_tails',
    'swap_loss',
]
