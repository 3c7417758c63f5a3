# The quickstart: training objects change as fitters differ, so that the encoder knows splats of other fitters too
# (configs/ablations/augmentations.py). The tables compare designs without these changes.
_base_ = ['clipgs_pointbert-nano_15e_toy-world.py']

train_pipeline = [
    *_base_.load_pipeline,
    dict(type='clipgs_plugin.VaryFitter', probability=0.3),
    *_base_.train_pipeline[len(_base_.load_pipeline):],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# Earlier epochs are never the best, and a validation takes a third of one. With fewer epochs, lower val_begin too.
train_cfg = dict(max_epochs=20, val_begin=13)
