# A nano encoder on a published set; --cfg-options dataset_type=clipgs_plugin.ShapeSplats data_root=FOLDER for another.
# The captions are the class names; the teacher, the small CLIP model of this package, embeds them during training.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/public_set.py',
          '../_base_/schedules/adamw_15e.py', '../_base_/default_runtime.py']

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model='toy-clip')

# Objects of a class share their caption, so they are not negatives of each other.
model = dict(teacher=teacher, text_loss=dict(collisions='mask'), image_loss=None)
train_dataloader = dict(dataset=dict(templates='objects'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))

test_evaluator = val_evaluator = dict(type='clipgs_plugin.ZeroShotAccuracy', teacher=teacher, templates='objects')
