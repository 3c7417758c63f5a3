# Views in the small CLIP model of this package, on the toy world, with the background of the teacher's pictures.
_base_ = ['../_base_/models/multi_view_clip.py', '../_base_/datasets/toy_world.py', '../_base_/default_runtime.py']

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)
model = dict(teacher=teacher, background=(0.93, 0.93, 0.93))

pipeline = [dict(type='clipgs_plugin.LoadGaussians'), dict(type='clipgs_plugin.PackGaussians')]
train_dataloader = val_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=pipeline))
test_cfg = dict()
test_evaluator = [
    dict(type='clipgs_plugin.ZeroShotAccuracy', teacher=teacher, templates='toy'),
    dict(type='clipgs_plugin.RetrievalRecall'),
]
