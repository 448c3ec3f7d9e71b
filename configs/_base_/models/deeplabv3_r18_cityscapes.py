_base_ = './deeplabv3_r18.py'
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    # Crops of 16 n + 1 pixels: corners of features and labels coincide.
    decode_head=dict(num_classes=19, align_corners=True),
)
