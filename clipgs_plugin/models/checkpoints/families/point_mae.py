"""Point-MAE (Pang et al., ECCV 2022).

A pre-training file has the encoder as ``MAE_encoder.`` and neither class token nor its position; a fine-tuned file has
bare names and both.
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
    'mask_token': 'of pre-training only',
    'MAE_decoder.': 'the decoder of pre-training',
    'decoder_pos_embed.': 'the decoder of pre-training',
    'increase_dim.': 'the decoder of pre-training',
    'cls_head_finetune.': 'the classifier of fine-tuning',
}


def point_mae_architecture(tensors: Mapping[str, Tensor], backbone: str = 'PointMAE') -> Architecture:
    """Sizes of a Point-MAE; its heads are taken to be 64 wide, since no shape tells them."""
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
    absent=('reduce_dim.', 'norm1_contrast', 'n3_agg.', 'ls1.'),
    unused=MAE_UNUSED,
)
