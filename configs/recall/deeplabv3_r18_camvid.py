_base_ = [
    '../_base_/models/deeplabv3_r18_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/camvid.py',
    '../_base_/losses/recall.py',
    '../_base_/default_runtime.py',
]
