# What all datasets share. A dataset samples its own number of Gaussians after `load_pipeline`; `train_pipeline` holds
# only the augmentation. Models expect y up.
load_pipeline = [
    dict(type='LoadGaussians', sh_degree=0),
    dict(type='FilterOpacity', threshold=0.05),
    dict(type='DropFloaters', isolation=0.75, neighbours=8, size=1.0, max_share=0.02),
]
train_pipeline = [dict(type='RotateGaussians', axis='y')]

train_dataloader = dict(
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_gaussians'))
val_dataloader = test_dataloader = dict(
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='collate_gaussians'))
