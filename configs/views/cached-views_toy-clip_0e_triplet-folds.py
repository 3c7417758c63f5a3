# The ceiling of image to 3D in the small CLIP model: an object is the mean of the teacher's features of its fitted
# views.
_base_ = ['../_base_/datasets/triplet_folds.py', '../_base_/default_runtime.py']

model = dict(type='clipgs_plugin.CachedViews', view_slots=_base_.fitted_views)

pipeline = [dict(type='clipgs_plugin.SampleGaussians', num=1), dict(type='clipgs_plugin.PackGaussians')]
train_dataloader = val_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=pipeline))
test_cfg = dict()
