# A folder of triplets of one's own, made by `tools/make_triplets.py SOURCE data/triplets`, with the features of
# `tools/cache_features.py data/triplets --teacher toy-clip`; `--cfg-options data_root=FOLDER` names another. Where it
# has no split val or test, a tenth of the training objects stands in. Frame: y up.
data_root = 'data/triplets'
teacher_name = 'toy-clip'
num_gaussians = 2048
hold_out = 0.1

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

# Batches that are not full are trained on too: a set may be smaller than one.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='train', hold_out=hold_out, features=teacher_name,
                 num_views=5, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='collate_gaussians'),
    dataset=dict(type='TripletDataset', root=data_root, split='val', hold_out=hold_out, features=teacher_name,
                 test_mode=True, pipeline=test_pipeline))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
