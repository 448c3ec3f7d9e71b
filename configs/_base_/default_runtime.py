default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# The models use plain BN, which trains on a CPU and on one GPU; mmengine turns it into
# SyncBN when it starts several processes on GPUs.
sync_bn = 'torch'
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=1337)
custom_hooks = [dict(type='CheckDatasetHook')]
tta_model = dict(type='SegTTAModel')
