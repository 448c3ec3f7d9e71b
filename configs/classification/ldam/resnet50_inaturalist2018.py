_base_ = [
    '../_base_/models/resnet50_inaturalist2018.py',
    '../_base_/datasets/inaturalist2018.py',
    '../_base_/schedules/inaturalist2018_90e.py',
    '../_base_/methods/ldam.py',
    '../_base_/default_runtime.py',
]
