_base_ = 'test_only.py'
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='CosineAnnealingLR', T_max=40, by_epoch=True, begin=0, end=40)
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=40)
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
