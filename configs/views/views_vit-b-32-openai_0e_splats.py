# Views in any CLIP model, on a folder of labelled splats. `views:TEACHER` is this config with another teacher_name, and
# `views:TEACHER@TAG` also sets its tag or weight file. Objects are rendered, so they keep all Gaussians and SH bands.
_base_ = ['../_base_/models/multi_view_clip.py', '../_base_/datasets/gaussian_folder.py',
          '../_base_/default_runtime.py']

teacher_name = 'vit-b-32-openai'
pretrained = None
up = 'y'

teacher = dict(type='clipgs_plugin.OpenCLIPTeacher', model=teacher_name, pretrained=pretrained)
model = dict(teacher=teacher)

pipeline = [
    dict(type='clipgs_plugin.LoadGaussians'),
    dict(type='clipgs_plugin.ChangeUp', source=up, target='y'),
    dict(type='clipgs_plugin.DropFloaters', isolation=0.75, neighbours=8, size=1.0, max_share=0.02),
    dict(type='clipgs_plugin.PackGaussians'),
]
train_dataloader = val_dataloader = None
test_dataloader = dict(dataset=dict(pipeline=pipeline))
test_cfg = dict()
test_evaluator = dict(type='clipgs_plugin.ZeroShotAccuracy', teacher=teacher, templates='objects')
