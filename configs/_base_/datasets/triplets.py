# Your own triplet dataset. Create it with `tools/make_triplets.py SOURCE data/triplets` and its features with
# `tools/cache_features.py data/triplets --teacher toy-clip`; `--cfg-options data_root=FOLDER` names another folder.
# If the dataset has no split val or test, a tenth of the training objects replaces it. Frame: y up.
_base_ = ['triplet_splits.py']

data_root = 'data/triplets'
teacher_name = 'toy-clip'
num_gaussians = 2048

train_pipeline = [
    *_base_.load_pipeline,
    dict(type='clipgs_plugin.SampleGaussians', num=num_gaussians),
    dict(type='clipgs_plugin.NormaliseGaussians'),
    *_base_.train_pipeline,
    dict(type='clipgs_plugin.PackGaussians'),
]
test_pipeline = [
    *_base_.load_pipeline,
    dict(type='clipgs_plugin.SampleGaussians', num=num_gaussians, method='fps'),
    dict(type='clipgs_plugin.NormaliseGaussians'),
    dict(type='clipgs_plugin.PackGaussians'),
]

# Incomplete batches are kept, because the dataset may be smaller than one batch.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(root=data_root, features=teacher_name, pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(root=data_root, features=teacher_name, pipeline=test_pipeline))
