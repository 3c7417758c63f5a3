# The nano encoder on triplets of scanned objects, in five folds. The small CLIP model has no words for these objects,
# so only their views align, all with the same weight. docs/real_texture.md has the commands and figures.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/triplet_folds.py',
          '../_base_/schedules/adamw_20e.py', '../_base_/default_runtime.py']

model = dict(text_loss=None, image_loss=dict(weights='uniform'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=60)

# The last epoch counts: no object is left by which to choose another one.
val_dataloader = val_cfg = val_evaluator = None
default_hooks = dict(checkpoint=dict(interval=10, save_best=None))

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)
