# A nano encoder on triplets of one's own, taught by the small CLIP model that ships: a first look at new data.
_base_ = ['../_base_/models/gs_encoder_nano.py', '../_base_/datasets/triplets.py', '../_base_/schedules/adamw_15e.py',
          '../_base_/default_runtime.py']

# Objects that share a caption, as those named after their category do, are no negatives of each other.
model = dict(text_loss=dict(collisions='mask'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))

teacher = dict(type='OpenCLIPTeacher', model=_base_.teacher_name)

val_evaluator = test_evaluator = dict(type='RetrievalRecall')
