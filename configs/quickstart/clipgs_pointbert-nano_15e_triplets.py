# A nano encoder on your own triplets, for a first look at new data. The teacher is the small CLIP model of this
# package.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/triplets.py', '../_base_/schedules/adamw_15e.py',
          '../_base_/default_runtime.py']

# Objects that share a caption, for example the name of their category, are not negatives of each other.
model = dict(text_loss=dict(collisions='mask'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)

val_evaluator = test_evaluator = dict(type='clipgs_plugin.RetrievalRecall')
