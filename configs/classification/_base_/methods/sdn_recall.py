custom_imports = dict(imports=['mmseg_recall.classification'], allow_failed_imports=False)
runner_type = 'HeadRunner'
head = dict(
    type='SDNHead',
    # A class is rarely in a batch, and then with a few samples.
    loss=dict(type='RecallLoss', momentum=0.9, smoothing=1.0),
    loss_classifier=dict(type='ClassBalancedLoss'),
)
