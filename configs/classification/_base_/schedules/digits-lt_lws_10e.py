# For the scales of LWSHead.
_base_ = 'digits-lt_40e.py'
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9))
param_scheduler = dict(T_max=10, end=10)
train_cfg = dict(max_epochs=10, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
