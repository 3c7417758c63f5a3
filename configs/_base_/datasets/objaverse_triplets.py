# Objaverse as a triplet dataset. Create it with tools/make_triplets.py (36 views per object, as in the paper) and the
# features of Uni3D's teacher with tools/cache_features.py; `--cfg-options data_root=FOLDER` names another folder.
# 10,000 Gaussians per object, the number of points that the point-cloud models were trained on. If the dataset has no
# split val or test, a hundredth of the training objects replaces it. Frame: y up.
_base_ = ['triplet_splits.py']

data_root = 'data/objaverse_triplets'
teacher_name = 'eva02-e-14-plus-laion2b'
num_gaussians = 10000
hold_out = 0.01

load_pipeline = [
    *_base_.load_pipeline,
    dict(type='clipgs_plugin.SampleGaussians', num=num_gaussians),
    dict(type='clipgs_plugin.NormaliseGaussians'),
]
train_pipeline = [
    *load_pipeline,
    *_base_.train_pipeline,
    dict(type='clipgs_plugin.ScaleGaussians', low=0.8, high=1.25),
    dict(type='clipgs_plugin.DropColor', probability=0.2),
    dict(type='clipgs_plugin.PackGaussians'),
]
test_pipeline = [*load_pipeline, dict(type='clipgs_plugin.PackGaussians')]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    dataset=dict(root=data_root, hold_out=hold_out, features=teacher_name, pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    dataset=dict(root=data_root, hold_out=hold_out, features=teacher_name, pipeline=test_pipeline))
