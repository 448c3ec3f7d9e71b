# The same crops from all training images, tested on the validation images.
_base_ = ['class_balanced_crops.py']
class_counts = 'data/camvid/class_counts.json'
train_dataloader = dict(
    dataset=dict(index='data/camvid/class_images.json', dataset=dict(indices=None))
)
test_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'), indices=None
    )
)
