_base_ = './deeplabv3_r18.py'
model = dict(
    data_preprocessor=dict(
        # Of the Virtual KITTI 2 images, in RGB order.
        mean=[97.7186, 98.8147, 78.8008],
        std=[68.1589, 68.0554, 68.4909],
        size=(375, 1242),
    ),
    decode_head=dict(num_classes=14),
)
