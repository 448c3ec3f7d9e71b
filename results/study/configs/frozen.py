# What the trainings on frozen features share: a narrower head, a schedule of seconds, and images to
# choose by.
_base_ = ['../../deeplabv3plus_lite0.py']
optim_wrapper = dict(optimizer=dict(lr=1e-2))
model = dict(decode_head=dict(channels=32, dilations=(1,)))
param_scheduler = [
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=150, by_epoch=False),
]
train_cfg = dict(max_iters=150)
val_cfg = dict(_delete_=True, type='ValLoop')
