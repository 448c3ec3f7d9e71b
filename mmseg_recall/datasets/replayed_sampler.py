"""A sampler with which a resumed run goes on with the random augmentation, too."""

from __future__ import annotations

from collections.abc import Callable

from mmengine.dataset import InfiniteSampler
from mmseg.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ReplayedInfiniteSampler(InfiniteSampler):
    """mmengine's InfiniteSampler, whose data is loaded again up to where a resumed run goes on.

    The random numbers of augmentation are drawn in the worker processes, which a resumed run
    starts afresh. mmengine 0.10.7 lets them load all the batches that were trained on, and so come
    to the state they had; newer versions skip those where the sampler can, which is quick, but the
    augmentation then begins anew. This sampler cannot. It takes ``num_workers`` of at least 1.

    Example:
        >>> sampler = dict(type='ReplayedInfiniteSampler', shuffle=True)
    """

    @property
    def skip(self) -> Callable[[int], None]:
        """Not there, which is what the train loop asks."""
        raise AttributeError('ReplayedInfiniteSampler loads the data again instead of skipping it')
