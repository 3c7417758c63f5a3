"""Uni3D (Zhou et al., ICLR 2024).

A file is a DeepSpeed state. It holds a whole EVA image model under ``visual.``, but the point-cloud model uses only its
blocks and ``fc_norm``. ``trans2embed`` projects into the space of EVA02-E-14-plus (width 1024).
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import (
    PATCH_ENCODER,
    Architecture,
    Family,
    Rule,
    count_blocks,
    linear_projection,
    mini_pointnet,
    shape,
    size_of_width,
)

_IMAGE = 'part of the image model, never used for points'


def uni3d_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of a Uni3D from its width."""
    from clipgs_plugin.models.backbones.uni3d import SIZES

    width, in_channels = shape(tensors, 'backbone.encoder2trans.weight')
    backbone = dict(type='Uni3D', size=size_of_width(SIZES, width, 'Uni3D'), in_channels=in_channels,
                    depth=count_blocks(tensors, 'backbone.blocks.'))
    return Architecture(mini_pointnet(tensors), backbone, linear_projection(tensors, bias=True))


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
        'logit_scale': 'temperature of training',
        'visual.cls_token': _IMAGE,
        'visual.pos_embed': _IMAGE,
        'visual.patch_embed.': _IMAGE,
        'visual.head.': _IMAGE,
        'visual.rope.': _IMAGE,
    },
    wrapper='module',
)
