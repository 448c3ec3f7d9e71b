_base_ = [
    '../_base_/models/deeplabv3_r18_virtual-kitti.py',
    '../_base_/datasets/virtual-kitti.py',
    '../_base_/schedules/synthia_100k.py',
    '../_base_/losses/recall.py',
    '../_base_/default_runtime.py',
]
