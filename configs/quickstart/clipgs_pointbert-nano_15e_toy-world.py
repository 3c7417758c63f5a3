# The quickstart: a nano encoder on the toy world. The teacher is the small CLIP model of this package.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/toy_world.py', '../_base_/schedules/adamw_15e.py',
          '../_base_/default_runtime.py']

# Small batches at a high learning rate: many steps in the few minutes of a quickstart.
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=1e-3))

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)

test_evaluator = val_evaluator = [
    dict(type='clipgs_plugin.ZeroShotAccuracy', teacher=teacher, templates='toy'),
    dict(type='clipgs_plugin.RetrievalRecall'),
]
default_hooks = dict(checkpoint=dict(save_best='zero_shot/top1', rule='greater'))
