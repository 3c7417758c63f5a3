# Labelled splat files: data/splats/{train,val,test}/CLASS/NAME.{ply,splat,spz,sog,...}. `up` is the up axis of the
# files; models expect y.
_base_ = ['gaussians.py']

data_root = 'data/splats'
up = 'y'
num_gaussians = 10000

load_pipeline = [
    *_base_.load_pipeline[:1],
    dict(type='clipgs_plugin.ChangeUp', source=up, target='y'),
    *_base_.load_pipeline[1:],
    dict(type='clipgs_plugin.SampleGaussians', num=num_gaussians),
    dict(type='clipgs_plugin.NormaliseGaussians'),
]
train_pipeline = [
    *load_pipeline,
    *_base_.train_pipeline,
    dict(type='clipgs_plugin.ScaleGaussians', low=0.8, high=1.25),
    dict(type='clipgs_plugin.PackGaussians'),
]
test_pipeline = [*load_pipeline, dict(type='clipgs_plugin.PackGaussians')]

# Incomplete batches are kept, because the folder may be smaller than one batch.
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(type='clipgs_plugin.GaussianFolder', root=data_root + '/train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(type='clipgs_plugin.GaussianFolder', root=data_root + '/val', test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], root=data_root + '/test'))
