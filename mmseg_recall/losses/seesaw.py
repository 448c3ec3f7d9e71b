"""Seesaw loss: frequent classes push rare ones down less."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..functional import check_shapes, seesaw_nll_sum, sum_over_ranks, valid_pixels
from ..functional.counts import count_labels
from .base import SegmentationLoss


class SeesawLoss(SegmentationLoss):
    """Cross-entropy in which a class is punished less for the pixels of a more frequent one.

        L = - (1 / N) sum_n log( e^{z_y} / (e^{z_y} + sum_{j != y} M_yj C_yj e^{z_j}) )
        M_yj = min(1, N_j / N_y)^p,    C_yj = max(1, softmax(z)_j / softmax(z)_y)^q

    with y the class of pixel n and N_c its pixels in all training batches so far, which are counted
    over all ranks and kept in the checkpoint: no statistics of the training set are needed. A class
    not yet seen counts one pixel. M and C are constants for the gradient.

    Args:
        p: >= 0, of the mitigation factor M.
        q: >= 0, of the compensation factor C.
        sync_stats: Count over all ranks; see :class:`ClassWeightedLoss`.
        kwargs: Of :class:`SegmentationLoss`.

    Attributes:
        pixels: N_c, (C,) int64; None before the first batch.

    Raises:
        ValueError: p or q negative or not finite.

    Example:
        >>> import torch
        >>> SeesawLoss(p=1.0)(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        tensor(0.3890)

    Source: Wang et al. 2021, per pixel.
    """

    default_name = 'loss_seesaw'
    running_names = ('pixels',)

    def __init__(
        self, p: float = 0.8, q: float = 2.0, sync_stats: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (('p', p), ('q', q)):
            if not 0 <= value < float('inf'):
                raise ValueError(f'{name} must be >= 0 and finite, got {value}')
        self.p, self.q = p, q
        self.sync_stats = sync_stats
        self.pixels: Tensor | None = None

    def compute(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None, ignore_index: int | None
    ) -> Tensor:
        check_shapes(logits, target)
        num_classes, labels = logits.shape[1], target.long()
        valid = valid_pixels(labels, num_classes, ignore_index)
        counts = count_labels(torch.where(valid, labels, num_classes), num_classes + 1)[:-1]
        counts, world_size = sum_over_ranks(counts, self.sync_stats)
        total = seesaw_nll_sum(
            logits,
            target,
            self._add(counts),
            self.p,
            self.q,
            ignore_index=ignore_index,
            pixel_weight=pixel_weight,
        )
        return world_size * total / counts.sum().clamp_min(1)

    def _add(self, counts: Tensor) -> Tensor:
        pixels = self.running('pixels', counts)
        if pixels is None:
            pixels = torch.zeros_like(counts)
        if self.training:
            self.pixels = pixels = pixels + counts
        return pixels
