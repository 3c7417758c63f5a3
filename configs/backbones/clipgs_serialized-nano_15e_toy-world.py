# A transformer over serialised Gaussians on the toy world. It takes Gaussians, so it has no tokenizer.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=None,
        backbone=dict(
            _delete_=True,
            type='clipgs_plugin.SerializedTransformer',
            widths=(48, 96, 192),
            depths=(1, 2, 2),
            num_heads=(3, 6, 6),
            window=128,
            cells=(16, 8))))
