_base_ = './deeplabv3_r101.py'
model = dict(
    data_preprocessor=dict(
        # Of the SYNTHIA-SEQS images, in RGB order.
        mean=[71.238, 62.204, 55.099],
        std=[55.364, 51.497, 49.561],
        size=(384, 768),
    ),
    decode_head=dict(num_classes=13),
)
