_base_ = 'inaturalist2018.py'
dataset_type = 'PlacesLTDataset'
data_root = 'data/places-lt'
class_counts = 'data/places-lt/class_counts.json'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='Places_LT_train.txt')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='Places_LT_val.txt')
)
test_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='Places_LT_test.txt')
)
val_evaluator = dict(class_counts=class_counts)
test_evaluator = val_evaluator
