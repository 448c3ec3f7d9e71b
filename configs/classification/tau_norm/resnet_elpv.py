_base_ = [
    '../_base_/models/resnet_elpv.py',
    '../_base_/datasets/elpv.py',
    '../_base_/schedules/test_only.py',
    '../_base_/methods/tau_norm.py',
    '../_base_/default_runtime.py',
]
train_dataloader = None
