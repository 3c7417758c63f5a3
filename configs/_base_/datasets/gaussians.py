# What all datasets share. A dataset samples its own number of Gaussians after `load_pipeline`; `train_pipeline` holds
# only the augmentation. Models expect y up.
load_pipeline = [
    dict(type='clipgs_plugin.LoadGaussians', sh_degree=0),
    dict(type='clipgs_plugin.FilterOpacity', threshold=0.05),
    dict(type='clipgs_plugin.DropFloaters', isolation=0.75, neighbours=8, size=1.0, max_share=0.02),
]
train_pipeline = [dict(type='clipgs_plugin.RotateGaussians', axis='y')]

train_dataloader = dict(
    sampler=dict(type='clipgs_plugin.EpochSampler', shuffle=True),
    collate_fn=dict(type='clipgs_plugin.collate_gaussians'))
val_dataloader = test_dataloader = dict(
    sampler=dict(type='clipgs_plugin.EpochSampler', shuffle=False),
    collate_fn=dict(type='clipgs_plugin.collate_gaussians'))
