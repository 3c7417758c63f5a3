# Labelled splat files for models of point clouds: points of the surface that a splat shows, in place of the centres of
# its Gaussians. docs/splats_to_points.md has the errors of both.
_base_ = ['gaussian_folder.py']

num_points = 10000

test_pipeline = [
    dict(type='clipgs_plugin.LoadGaussians'),
    dict(type='clipgs_plugin.ChangeUp', source=_base_.up, target='y'),
    dict(type='clipgs_plugin.SplatsToPoints', num_points=num_points),
    dict(type='clipgs_plugin.NormaliseGaussians'),
    dict(type='clipgs_plugin.PackGaussians'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
