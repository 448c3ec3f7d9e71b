_base_ = [
    '../_base_/models/resnet_elpv.py',
    '../_base_/datasets/elpv-lt.py',
    '../_base_/schedules/elpv_lws_5e.py',
    '../_base_/methods/lws.py',
    '../_base_/default_runtime.py',
]
# The backbone stays what it was, its running statistics too.
model = dict(backbone=dict(frozen_stages=1, norm_eval=True))
