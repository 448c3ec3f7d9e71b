# The hold-out of the study with crops drawn by class, in place of a loss that weighs classes.
_base_ = ['../deeplabv3plus_lite0_camvid_holdout.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedCrops',
        index='data/camvid/class_images_holdout.json',
        dataset=dict(
            type='CamVidDataset',
            data_root='data/camvid',
            data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
            indices={{_base_.train_dataloader.dataset.indices}},
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(
                    type='RandomResize', scale=(320, 240), ratio_range=(0.75, 1.5), keep_ratio=True
                ),
                dict(type='CropAroundClass', crop_size=(180, 240)),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PackSegInputs'),
            ],
        ),
    )
)
