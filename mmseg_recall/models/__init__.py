"""What surrounds a loss in mmseg."""

from .loss_runner import LossRunner, swap_loss

__all__ = ['LossRunner', 'swap_loss']
