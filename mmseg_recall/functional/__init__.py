"""Pure functions of tensors: needs torch, and nothing else of this package or of mmseg."""

from .adjusted import adjusted_nll_sum
from .checks import as_class_logits, check_shapes, valid_pixels
from .class_nll import (
    checked_pixel_nll,
    class_nll_sums,
    resized_class_nll_sums,
    weighted_mean,
)
from .counts import ClassCounts, count_classes, dice, jaccard, precision, recall, tversky
from .focal import focal_modulation
from .lovasz import lovasz_softmax
from .ohem import hardest_mean
from .ranks import sum_over_ranks
from .seesaw import seesaw_nll_sum
from .soft_iou import soft_sums, tversky_distance
from .weights import (
    class_balanced_weight,
    inverse_frequency_weight,
    log_prior,
    median_frequency_weight,
    recall_weight,
)

__all__ = [
    'ClassCounts',
    'adjusted_nll_sum',
    'as_class_logits',
    'check_shapes',
    'checked_pixel_nll',
    'class_balanced_weight',
    'class_nll_sums',
    'count_classes',
    'dice',
    'focal_modulation',
    'hardest_mean',
    'inverse_frequency_weight',
    'jaccard',
    'log_prior',
    'lovasz_softmax',
    'median_frequency_weight',
    'precision',
    'recall',
    'recall_weight',
    'resized_class_nll_sums',
    'seesaw_nll_sum',
    'soft_sums',
    'sum_over_ranks',
    'tversky',
    'tversky_distance',
    'valid_pixels',
    'weighted_mean',
]
