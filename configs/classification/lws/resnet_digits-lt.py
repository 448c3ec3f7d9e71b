_base_ = [
    '../_base_/models/resnet_digits-lt.py',
    '../_base_/datasets/digits-lt.py',
    '../_base_/schedules/digits-lt_lws_10e.py',
    '../_base_/methods/lws.py',
    '../_base_/default_runtime.py',
]
# The backbone stays what it was, its running statistics too.
model = dict(backbone=dict(frozen_stages=3, norm_eval=True))
