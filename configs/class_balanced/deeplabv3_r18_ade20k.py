_base_ = [
    '../_base_/models/deeplabv3_r18_ade20k.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/cityscapes_90k.py',
    '../_base_/losses/class_balanced.py',
    '../_base_/default_runtime.py',
]
