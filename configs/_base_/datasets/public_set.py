# A published set, read where it lies: `dataset_type` is its class (tools/list_datasets.py lists them), `data_root` its
# folder, `dataset_options` further options of the class, such as dict(labels='data/objaverse_lvis/lvis.json').
# The class turns objects to y up. Where the publisher has no split val, `fit` and `val` are about nine tenths and one
# tenth of train, so that no checkpoint is chosen on the test split.
_base_ = ['gaussians.py']

dataset_type = 'clipgs_plugin.ModelNetSplats'
data_root = 'data/modelnet_splats'
dataset_options = dict()
num_gaussians = 10000

load_pipeline = [
    *_base_.load_pipeline,
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

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(type=dataset_type, root=data_root, split='fit', pipeline=train_pipeline, **dataset_options))
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(type=dataset_type, root=data_root, split='val', test_mode=True, pipeline=test_pipeline,
                 **dataset_options))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
