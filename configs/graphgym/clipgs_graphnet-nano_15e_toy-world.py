# A graph network of torch-geometric on the toy world: edge convolutions over neighbouring Gaussians. It needs the extra
# `geometric`, and it takes Gaussians, so it has no tokenizer.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

custom_imports = dict(imports=['clipgs_plugin.geometric'])
num_gaussians = 512

model = dict(
    encoder=dict(
        tokenizer=None,
        backbone=dict(
            _delete_=True, type='clipgs_plugin.GaussianGraphNet', k=12, widths=(32, 32, 64), embed_dims=128)))
