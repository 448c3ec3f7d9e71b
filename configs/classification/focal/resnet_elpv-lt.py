_base_ = [
    '../_base_/models/resnet_elpv.py',
    '../_base_/datasets/elpv-lt.py',
    '../_base_/schedules/elpv_8e.py',
    '../_base_/methods/focal.py',
    '../_base_/default_runtime.py',
]
