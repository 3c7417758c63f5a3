# Views of the Gaussians in the small CLIP model, on triplets of scanned objects, in five folds. Like the queries, the
# cameras are spread over the whole sphere.
_base_ = ['../_base_/models/multi_view_clip.py', '../_base_/datasets/triplet_folds.py', '../_base_/default_runtime.py']

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=_base_.teacher_name)
model = dict(teacher=teacher, elevation=None)

pipeline = [dict(type='clipgs_plugin.LoadGaussians'), dict(type='clipgs_plugin.PackGaussians')]
train_dataloader = val_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=pipeline))
test_cfg = dict()
