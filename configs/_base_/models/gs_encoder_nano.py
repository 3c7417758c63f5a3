# A small encoder for the toy world on a CPU: 1,024 Gaussians in 64 patches of 16, 4 MB in half precision.
_base_ = ['clip_gs.py']

model = dict(
    encoder=dict(
        type='clipgs_plugin.GSEncoder',
        tokenizer=dict(
            type='clipgs_plugin.GSTokenizer',
            num_groups=64,
            group_size=16,
            channels=192,
            attributes='shape',
            patch_encoder=dict(widths=(32, 64, 128)),
            refine_widths=(32, 32, 64)),
        backbone=dict(type='clipgs_plugin.PointBERT', embed_dims=192, depth=4, num_heads=6, in_channels=192),
        embed_dim=128))
