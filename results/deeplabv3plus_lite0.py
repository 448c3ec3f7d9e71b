# DeepLabV3+ on the first four stages of EfficientNet-Lite0, to compare losses on a CPU: ImageNet
# weights that install from pip (tools/model_converters/efficientnet_lite0.py writes them) and a
# schedule of four minutes on one core. A leaf adds a dataset, its number of classes and the crops'
# size.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        output_stride=16,
        out_indices=(1, 3),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/efficientnet_lite0.pth'),
    ),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_channels=112,
        in_index=1,
        channels=128,
        c1_in_channels=24,
        c1_channels=24,
        dilations=(1, 6, 12, 18),
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=3e-3))
param_scheduler = [
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=240, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=240)
# The last checkpoint is tested, for every loss; nothing is chosen by validation.
val_cfg = None
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=80, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
