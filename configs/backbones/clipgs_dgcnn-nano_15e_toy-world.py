# DGCNN on the toy world. It takes Gaussians, so it has no tokenizer. Narrow, because its graphs are expensive.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=None,
        backbone=dict(_delete_=True, type='clipgs_plugin.DGCNN', k=10, widths=(32, 32, 64, 128), embed_dims=256)))
