_base_ = [
    '../_base_/models/resnet_elpv.py',
    '../_base_/datasets/elpv-lt.py',
    '../_base_/schedules/elpv_8e.py',
    '../_base_/methods/weighted_focal.py',
    '../_base_/default_runtime.py',
]
# From 80% of the epochs on, as Cao et al. 2019; weights normalised as in their code.
custom_hooks = [dict(type='DeferredReweightingHook', begin=6, normalization='classes')]
