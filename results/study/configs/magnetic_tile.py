_base_ = [
    'frozen.py',
    '../../../configs/_base_/datasets/magnetic_tile.py',
    '../../../configs/_base_/losses/ce.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(224, 224)), decode_head=dict(num_classes=6))
train_dataloader = dict(batch_size=4)
