# The photographs of elpv.py, thinned out for training.
_base_ = 'elpv.py'
# Of the training set below.
class_counts = [885, 458, 237, 122, 63, 32, 17, 8]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LongTailedDataset',
        dataset=_base_.train_dataloader.dataset,
        imbalance_factor=100,
        largest=885,
        seed=0,
    )
)
val_evaluator = dict(class_counts=class_counts)
test_evaluator = val_evaluator
