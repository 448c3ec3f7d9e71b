_base_ = [
    '../_base_/models/resnet152_places-lt.py',
    '../_base_/datasets/places-lt.py',
    '../_base_/schedules/places-lt_30e.py',
    '../_base_/methods/bbn.py',
    '../_base_/default_runtime.py',
]
