model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=152,
        num_stages=4,
        out_indices=(3,),
        style='pytorch',
        # As Kang et al. 2020, whose setting the paper follows.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='torchvision://resnet152',
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=365,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
