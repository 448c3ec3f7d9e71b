# Half-width and from random initialisation, for training on a CPU.
_base_ = './deeplabv3_r18.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32, init_cfg=None),
    decode_head=dict(in_channels=256, channels=64),
)
