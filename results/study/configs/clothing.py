_base_ = [
    'frozen.py',
    '../../../configs/_base_/datasets/clothing.py',
    '../../../configs/_base_/losses/ce.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(240, 192)), decode_head=dict(num_classes=59))
train_dataloader = dict(batch_size=4)
