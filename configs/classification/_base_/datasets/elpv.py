# The feature maps that tools/classification/convert_elpv.py writes.
dataset_type = 'ELPVDataset'
data_root = 'data/elpv'
# Of the training set below.
class_counts = [885, 553, 367, 278, 143, 82, 21, 15]
train_pipeline = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train.npz',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=80,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val.npz',
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    batch_size=200,
    dataset=dict(val_dataloader['dataset'], ann_file='test.npz'),
)
val_evaluator = dict(type='ShotAccuracy', class_counts=class_counts)
test_evaluator = val_evaluator
