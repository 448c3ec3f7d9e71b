_base_ = [
    'deeplabv3plus_lite0.py',
    '../configs/_base_/datasets/camvid.py',
    '../configs/_base_/losses/ce.py',
    '../configs/_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(180, 240)), decode_head=dict(num_classes=11))
train_dataloader = dict(batch_size=4)
val_dataloader = None
val_evaluator = None
