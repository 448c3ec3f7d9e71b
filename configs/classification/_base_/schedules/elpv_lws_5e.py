# For the scales of LWSHead.
_base_ = 'elpv_8e.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9))
param_scheduler = dict(T_max=5, end=5)
train_cfg = dict(max_epochs=5, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5))
