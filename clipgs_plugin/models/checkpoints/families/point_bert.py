"""Point-BERT (Yu et al., CVPR 2022).

A pre-trained file stores the model as ``transformer_q.`` under ``base_model``, next to its momentum copy and the dVAE.
A fine-tuned file stores the model without a prefix.
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
    linear_projection,
    mini_pointnet,
    shape,
)

POINT_BERT_RULES = (
    Rule('encoder.', PATCH_ENCODER),
    Rule('reduce_dim.', 'backbone.reduce_dim.'),
    Rule('cls_token', 'backbone.cls_token'),
    Rule('cls_pos', 'backbone.cls_pos'),
    Rule('pos_embed.', 'backbone.pos_embed.'),
    Rule('blocks.', 'backbone.blocks.'),
    Rule('norm.', 'backbone.norm.'),
)


def point_bert_architecture(tensors: Mapping[str, Tensor], backbone: str = 'PointBERT') -> Architecture:
    """Read the sizes of a Point-BERT. No shape reveals the number of heads; they are assumed to be 64 wide."""
    width, in_channels = shape(tensors, 'backbone.reduce_dim.weight')
    return Architecture(mini_pointnet(tensors), dict(
        type=backbone, embed_dims=width, depth=count_blocks(tensors, 'backbone.blocks.blocks.'),
        num_heads=heads_of_64(width), in_channels=in_channels), linear_projection(tensors, bias=False))


POINT_BERT = Family(
    name='point_bert',
    backbone='PointBERT',
    prefixes=('transformer_q.', ''),
    signature=('reduce_dim.weight', 'encoder.first_conv.0.weight'),
    architecture=point_bert_architecture,
    rules=POINT_BERT_RULES,
    same_layers=('ULIP',),
    unused={
        'transformer_k.': 'momentum copy of pre-training',
        'dvae.': 'tokenizer of pre-training',
        'queue': 'negatives of pre-training',
        'mask_token': 'used only in pre-training',
        'lm_head.': 'used only in pre-training',
        'cls_head.': 'used only in pre-training',
        'cls_head_finetune.': 'classifier of fine-tuning',
    },
)
