"""Uni3D (Zhou et al., ICLR 2024).

A file is a DeepSpeed state. It holds a whole EVA image model under ``visual.``, of which only the blocks and
``fc_norm`` are used; ``trans2embed`` leads into the space of EVA02-E-14-plus (1024).
"""
from clipgs_plugin.models.checkpoints.family import Family, Rule

UNI3D = Family(
    name='uni3d',
    backbone='Uni3D',
    prefixes=('point_encoder.', ''),
    signature='encoder2trans.weight',
    rules=(
        Rule('encoder.', 'tokenizer.patch_encoder.', 'patch_encoder'),
        Rule('encoder2trans.', 'backbone.encoder2trans.', 'patch_encoder'),
        Rule('cls_token', 'backbone.cls_token', 'position'),
        Rule('cls_pos', 'backbone.cls_pos', 'position'),
        Rule('pos_embed.', 'backbone.pos_embed.', 'position'),
        Rule('visual.blocks.', 'backbone.blocks.', 'blocks'),
        Rule('visual.fc_norm.', 'backbone.fc_norm.', 'norm'),
        Rule('trans2embed.', 'projection.', 'projection'),
    ),
)
