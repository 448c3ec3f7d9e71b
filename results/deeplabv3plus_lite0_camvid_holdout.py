# To choose between settings without the images that results are reported on: trained on the first
# three quarters of each sequence of CamVid's training images, tested on the last quarter.
_base_ = ['deeplabv3plus_lite0_camvid.py']
# Of the sorted file names: 0001TP, 0006R0, 0016E5.
sequences = [(0, 62), (62, 163), (163, 367)]
class_counts = 'data/camvid/class_counts_holdout.json'
train_dataloader = dict(dataset=dict(indices=[]))
test_dataloader = dict(
    dataset=dict(
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'), indices=[]
    )
)
for first, end in sequences:
    cut = first + 3 * (end - first) // 4
    train_dataloader['dataset']['indices'] += range(first, cut)
    test_dataloader['dataset']['indices'] += range(cut, end)
del sequences, first, end, cut
