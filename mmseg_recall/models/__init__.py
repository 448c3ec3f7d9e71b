"""What surrounds a loss in mmseg."""

from ..stack import check_stack

check_stack()

from .fused_head import FusedTail, fuse_tails  # noqa: E402
from .logit_adjustment import LogitAdjusted, adjust_logits  # noqa: E402
from .loss_swap import swap_loss  # noqa: E402
from .rewrite import rewrite  # noqa: E402

__all__ = [
    'FusedTail',
    'LogitAdjusted',
    'adjust_logits',
    'fuse_tails',
    'rewrite',
    'swap_loss',
]
