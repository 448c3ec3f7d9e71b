# Scored on CamVid's test images, mostly a drive that training never shows.
_base_ = ['deeplabv3plus_lite0_camvid.py']
test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'))
)
