_base_ = 'synthia_100k.py'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=90000)
