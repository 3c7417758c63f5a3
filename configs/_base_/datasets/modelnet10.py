# ModelNet10 as grey discs on 1,024 points: train.npz and test.npz, or another layout of ModelNetGaussians. `up` is the
# up axis of the files (z in the original meshes, y in modelnet40_normal_resampled and the .h5 files); models expect y.
# There is no validation split, so a tenth of each training class is held out.
_base_ = ['gaussians.py']

data_root = 'data/modelnet10'
up = 'z'
num_gaussians = 1024

load_pipeline = [
    dict(type='clipgs_plugin.ChangeUp', source=up, target='y'),
    dict(type='clipgs_plugin.NormaliseGaussians'),
]
train_pipeline = [
    *load_pipeline,
    dict(type='clipgs_plugin.ScaleGaussians', low=2 / 3, high=3 / 2),
    dict(type='clipgs_plugin.PackGaussians'),
]
test_pipeline = [*load_pipeline, dict(type='clipgs_plugin.PackGaussians')]

# Batch norm of the head needs full batches in training.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    dataset=dict(type='clipgs_plugin.ModelNetGaussians', root=data_root, split='train', num_points=num_gaussians,
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='clipgs_plugin.ModelNetGaussians', root=data_root, split='val', num_points=num_gaussians,
                 test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
