# Objaverse as triplets, made by tools/make_triplets.py (36 views an object, as in the paper), with the features of
# Uni3D's teacher, made by tools/cache_features.py; `--cfg-options data_root=FOLDER` names another folder. Frame: y up.
# 10,000 Gaussians an object, as the point-cloud models were given points. A hundredth of the objects stands in for a
# split val or test that the folder lacks.
data_root = 'data/objaverse_triplets'
teacher_name = 'eva02-e-14-plus-laion2b'
num_gaussians = 10000
hold_out = 0.01

load_pipeline = [
    dict(type='LoadGaussians', sh_degree=0),
    dict(type='FilterOpacity', threshold=0.05),
    dict(type='SampleGaussians', num=num_gaussians),
    dict(type='NormaliseGaussians'),
]
train_pipeline = [
    *load_pipeline,
    dict(type='RotateGaussians', axis='y'),
    dict(type='ScaleGaussians', low=0.8, high=1.25),
    dict(type='DropColor', probability=0.2),
    dict(type='PackGaussians'),
]
test_pipeline = [*load_pipeline, dict(type='PackGaussians')]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='train', hold_out=hold_out, features=teacher_name,
                 num_views=5, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='val', hold_out=hold_out, features=teacher_name,
                 test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
