_base_ = [
    '../_base_/models/deeplabv3_r18_synthia-mini.py',
    '../_base_/datasets/synthia-mini.py',
    '../_base_/schedules/synthia-mini.py',
    '../_base_/losses/inverse_frequency.py',
    '../_base_/default_runtime.py',
]
