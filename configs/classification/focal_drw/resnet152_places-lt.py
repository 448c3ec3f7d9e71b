_base_ = [
    '../_base_/models/resnet152_places-lt.py',
    '../_base_/datasets/places-lt.py',
    '../_base_/schedules/places-lt_30e.py',
    '../_base_/methods/weighted_focal.py',
    '../_base_/default_runtime.py',
]
# From 80% of the epochs on, as Cao et al. 2019; weights normalised as in their code.
custom_hooks = [dict(type='DeferredReweightingHook', begin=24, normalization='classes')]
