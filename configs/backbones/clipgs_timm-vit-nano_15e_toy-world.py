# An image transformer of timm on the toy world: a tiny ViT, as in the ablation of Table 7 of the CLIP-GS paper.
_base_ = ['../quickstart/clipgs_pointbert-nano_15e_toy-world.py']

model = dict(
    encoder=dict(
        tokenizer=dict(channels=128),
        backbone=dict(
            _delete_=True, type='clipgs_plugin.TimmTransformer', name='vit_tiny_patch16_224', depth=4,
            in_channels=128)))
