"""Imbalanced classification with mmpretrain: an optional half, imported by nothing else here.

Importing this package registers everything in mmpretrain's registries, which is what
``custom_imports = dict(imports=['mmseg_recall.classification'])`` does in a config.
"""

from ..stack import check_mmpretrain

check_mmpretrain()

from . import (  # noqa: E402, F401  (importing registers)
    bbn,
    datasets,
    deferred_reweighting,
    head_runner,
    ldam,
    losses,
    metrics,
    post_hoc,
    sdn_head,
    weighted_focal,
)
