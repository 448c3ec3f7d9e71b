_base_ = [
    'frozen.py',
    '../../../configs/_base_/datasets/neu_seg.py',
    '../../../configs/_base_/losses/ce.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(200, 200)), decode_head=dict(num_classes=4))
train_dataloader = dict(batch_size=4)
# A third of the validation images choose as well, and sooner.
val_dataloader = dict(dataset=dict(indices=list(range(0, 726, 3))))
