# ULIP on the toy world: Point-BERT's layers on coloured points, as in ULIP-2.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(channels=128),
        backbone=dict(_delete_=True, type='clipgs_plugin.ULIP', embed_dims=192, depth=4, num_heads=3, in_channels=128)))
