_base_ = [
    'frozen.py',
    '../../../configs/_base_/datasets/camvid.py',
    '../../../configs/_base_/losses/ce.py',
    '../../../configs/_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(180, 240)), decode_head=dict(num_classes=11))
train_dataloader = dict(batch_size=4)
# Chosen on the validation images and scored on the test images, mostly a drive that training never
# shows.
test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'))
)
