# Gaussian-MAE on the toy world: the soft patch encoder on its own 14 channels.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(
            channels=192,
            point_attributes=('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc'),
            patch_encoder=dict(
                _delete_=True, type='clipgs_plugin.SoftPatchEncoder', widths=(32, 32, 64), num_neighbors=12)),
        backbone=dict(_delete_=True, type='clipgs_plugin.GaussianMAE', embed_dims=192, depth=4, num_heads=3)))
