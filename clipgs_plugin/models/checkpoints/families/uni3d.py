"""Uni3D (Zhou et al., ICLR 2024).

A file is a DeepSpeed state. It holds a whole EVA image model under ``visual.``, of which only the blocks and
``fc_norm`` are used; ``trans2embed`` leads into the space of EVA02-E-14-plus (1024).
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.family import (
    PATCH_ENCODER,
    Architecture,
    Family,
    Rule,
    count_blocks,
    linear_projection,
    mini_pointnet,
    shape,
)

_IMAGE = 'of the image model, never used for points'


def uni3d_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Sizes of a Uni3D, by its width."""
    from clipgs_plugin.models.backbones.uni3d import SIZES

    width, in_channels = shape(tensors, 'backbone.encoder2trans.weight')
    size = next((size for size, (dim, *_) in SIZES.items() if dim == width), None)
    if size is None:
        raise ValueError(f'has a width of {width}, which no Uni3D has: they are '
                         f'{", ".join(f"{size} {dim}" for size, (dim, *_) in SIZES.items())}')
    return Architecture(mini_pointnet(tensors), dict(
        type='Uni3D', size=size, in_channels=in_channels, depth=count_blocks(tensors, 'backbone.blocks.')),
        linear_projection(tensors, bias=True))


UNI3D = Family(
    name='uni3d',
    backbone='Uni3D',
    prefixes=('point_encoder.', ''),
    signature=('encoder2trans.weight',),
    architecture=uni3d_architecture,
    rules=(
        Rule('encoder.', PATCH_ENCODER),
        Rule('encoder2trans.', 'backbone.encoder2trans.'),
        Rule('cls_token', 'backbone.cls_token'),
        Rule('cls_pos', 'backbone.cls_pos'),
        Rule('pos_embed.', 'backbone.pos_embed.'),
        Rule('visual.blocks.', 'backbone.blocks.'),
        Rule('visual.fc_norm.', 'backbone.fc_norm.'),
        Rule('trans2embed.', 'projection.'),
    ),
    projection_bias=True,
    unused={
        'logit_scale': 'the temperature of training',
        'visual.cls_token': _IMAGE,
        'visual.pos_embed': _IMAGE,
        'visual.patch_embed.': _IMAGE,
        'visual.head.': _IMAGE,
        'visual.rope.': _IMAGE,
    },
)
