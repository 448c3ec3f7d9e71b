# A stage of a ResNet on the feature maps of a frozen EfficientNet-Lite0.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(to_rgb=False),
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        in_channels=112,
        stem_channels=64,
        base_channels=64,
        num_stages=1,
        strides=(2,),
        dilations=(1,),
        out_indices=(0,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=8,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
