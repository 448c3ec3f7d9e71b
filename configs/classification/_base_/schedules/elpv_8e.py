_base_ = 'test_only.py'
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='CosineAnnealingLR', T_max=8, by_epoch=True, begin=0, end=8)
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=8)
default_hooks = dict(checkpoint=dict(interval=4))
