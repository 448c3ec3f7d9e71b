_base_ = [
    '../_base_/models/resnet_digits-lt.py',
    '../_base_/datasets/digits-lt.py',
    '../_base_/schedules/digits-lt_40e.py',
    '../_base_/methods/ldam.py',
    '../_base_/default_runtime.py',
]
