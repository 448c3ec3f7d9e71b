_base_ = [
    '../_base_/models/deeplabv3_r101_synthia.py',
    '../_base_/datasets/synthia.py',
    '../_base_/schedules/synthia_100k.py',
    '../_base_/losses/focal.py',
    '../_base_/default_runtime.py',
]
