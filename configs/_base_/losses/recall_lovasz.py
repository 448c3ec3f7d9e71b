custom_imports = dict(imports=['mmseg_recall'], allow_failed_imports=False)
runner_type = 'LossRunner'
loss_decode = [
    dict(type='RecallLoss'),
    dict(type='LovaszSoftmaxLoss'),
]
