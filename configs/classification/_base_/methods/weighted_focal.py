custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
runner_type = 'HeadRunner'
head = dict(type='LinearClsHead', loss=dict(type='WeightedFocalLoss'))
