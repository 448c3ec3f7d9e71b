custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
runner_type = 'HeadRunner'
head = dict(type='BBNHead', loss=dict(type='CrossEntropyLoss'))
batch_sampler = dict(type='BilateralBatchSampler')
custom_hooks = [dict(type='CumulativeLearningHook')]
