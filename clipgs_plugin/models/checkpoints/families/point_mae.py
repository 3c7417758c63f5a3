"""Point-MAE (Pang et al., ECCV 2022).

A pre-trained file stores the encoder as ``MAE_encoder.``, without a class token. A fine-tuned file stores it without a
prefix, and has the class token and its position.
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
    heads_of_64,
    mini_pointnet,
    shape,
)

MAE_RULES = (
    Rule('encoder.', PATCH_ENCODER),
    Rule('cls_token', 'backbone.cls_token'),
    Rule('cls_pos', 'backbone.cls_pos'),
    Rule('pos_embed.', 'backbone.pos_embed.'),
    Rule('blocks.', 'backbone.blocks.'),
    Rule('norm.', 'backbone.norm.'),
)
MAE_UNUSED = {
    'mask_token': 'used only in pre-training',
    'MAE_decoder.': 'decoder of pre-training',
    'decoder_pos_embed.': 'decoder of pre-training',
    'increase_dim.': 'decoder of pre-training',
    'cls_head_finetune.': 'classifier of fine-tuning',
}


def point_mae_architecture(tensors: Mapping[str, Tensor], backbone: str = 'PointMAE') -> Architecture:
    """Read the sizes of a Point-MAE. No shape reveals the number of heads; they are assumed to be 64 wide."""
    width, = shape(tensors, 'backbone.norm.weight')
    return Architecture(mini_pointnet(tensors), dict(
        type=backbone, embed_dims=width, depth=count_blocks(tensors, 'backbone.blocks.blocks.'),
        num_heads=heads_of_64(width), class_token='backbone.cls_token' in tensors), None)


POINT_MAE = Family(
    name='point_mae',
    backbone='PointMAE',
    prefixes=('MAE_encoder.', ''),
    signature=('blocks.blocks.0.norm1.weight', 'encoder.first_conv.0.weight', 'norm.weight'),
    architecture=point_mae_architecture,
    rules=MAE_RULES,
    same_layers=('GaussianMAE',),
    absent=('reduce_dim.', 'norm1_contrast', 'n3_agg.', 'ls1.'),
    unused=MAE_UNUSED,
)
