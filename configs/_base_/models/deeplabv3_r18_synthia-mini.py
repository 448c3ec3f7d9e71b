_base_ = './deeplabv3_r18_small.py'
model = dict(
    data_preprocessor=dict(size=(128, 256)),
    decode_head=dict(num_classes=13),
)
