custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
runner_type = 'HeadRunner'
head = dict(
    type='SDNHead',
    loss=dict(type='CrossEntropyLoss'),
    loss_classifier=dict(type='ClassBalancedLoss'),
)
