_base_ = [
    '../_base_/models/resnet50_inaturalist2018.py',
    '../_base_/datasets/inaturalist2018.py',
    '../_base_/schedules/inaturalist2018_90e.py',
    '../_base_/methods/weighted_focal.py',
    '../_base_/default_runtime.py',
]
# From 80% of the epochs on, as Cao et al. 2019; weights normalised as in their code.
custom_hooks = [dict(type='DeferredReweightingHook', begin=72, normalization='classes')]
