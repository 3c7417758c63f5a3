# ReCon on the toy world: three global tokens attend to the patches.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(channels=192),
        backbone=dict(_delete_=True, type='clipgs_plugin.ReCon', embed_dims=192, depth=4, num_heads=3)))
