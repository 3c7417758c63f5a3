# The toy world: procedural objects with captions. Create it with `tools/make_toy_world.py work_dirs/toy_world` and its
# features with `tools/cache_features.py work_dirs/toy_world --teacher toy-clip`. The environment variable
# CLIPGS_TOY_WORLD names another folder. Frame: y up, already in the unit sphere.
_base_ = ['triplet_splits.py']

data_root = '{{$CLIPGS_TOY_WORLD:work_dirs/toy_world}}'
teacher_name = 'toy-clip'
num_gaussians = 1024

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

# An object takes about a millisecond, so on a CPU a worker costs more than it saves.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    dataset=dict(root=data_root, features=teacher_name, pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(root=data_root, features=teacher_name, pipeline=test_pipeline))
