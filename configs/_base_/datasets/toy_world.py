# The toy world: procedural objects with captions, made by `tools/make_toy_world.py work_dirs/toy_world`, with the
# features of `tools/cache_features.py work_dirs/toy_world --teacher toy-clip`. CLIPGS_TOY_WORLD names another folder.
# Frame: y up, already in the unit sphere.
data_root = '{{$CLIPGS_TOY_WORLD:work_dirs/toy_world}}'
teacher_name = 'toy-clip'
num_gaussians = 1024

load_pipeline = [
    dict(type='LoadGaussians', sh_degree=0),
    dict(type='FilterOpacity', threshold=0.05),
]
train_pipeline = [
    *load_pipeline,
    dict(type='SampleGaussians', num=num_gaussians),
    dict(type='NormaliseGaussians'),
    dict(type='RotateGaussians', axis='y'),
    dict(type='PackGaussians'),
]
test_pipeline = [
    *load_pipeline,
    dict(type='SampleGaussians', num=num_gaussians, method='fps'),
    dict(type='NormaliseGaussians'),
    dict(type='PackGaussians'),
]

# An object takes about a millisecond, so on a CPU a worker costs more than it saves.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='train', features=teacher_name, num_views=5,
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='val', features=teacher_name, test_mode=True,
                 pipeline=test_pipeline))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
