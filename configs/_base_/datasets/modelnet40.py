# ModelNet40 as grey discs: 1,024 of the 10,000 points with normals of modelnet40_normal_resampled, whose up axis is y.
_base_ = ['modelnet10.py']

data_root = 'data/modelnet40_normal_resampled'
up = 'y'
load_pipeline = _base_.load_pipeline[1:]
train_pipeline = _base_.train_pipeline[1:]
test_pipeline = _base_.test_pipeline[1:]

train_dataloader = dict(
    num_workers=2, persistent_workers=True,
    dataset=dict(root=data_root, num_classes=40, pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    num_workers=2, persistent_workers=True,
    dataset=dict(root=data_root, num_classes=40, pipeline=test_pipeline))
