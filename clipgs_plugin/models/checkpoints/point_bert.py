"""Point-BERT (Yu et al., CVPR 2022) and ULIP's Point-BERT encoders (Xue et al., CVPR 2023 and 2024).

A pre-training file of Point-BERT has the model as ``transformer_q.`` beside its momentum copy and the dVAE; a
fine-tuned file has bare names; ULIP has ``point_encoder.`` beside the frozen CLIP.
"""
from clipgs_plugin.models.checkpoints.family import Family, Rule

POINT_BERT = Family(
    name='point_bert',
    backbone='PointBERT',
    prefixes=('transformer_q.', 'point_encoder.', ''),
    signature='reduce_dim.weight',
    rules=(
        Rule('encoder.', 'tokenizer.patch_encoder.', 'patch_encoder'),
        Rule('reduce_dim.', 'backbone.reduce_dim.', 'patch_encoder'),
        Rule('cls_token', 'backbone.cls_token', 'position'),
        Rule('cls_pos', 'backbone.cls_pos', 'position'),
        Rule('pos_embed.', 'backbone.pos_embed.', 'position'),
        Rule('blocks.', 'backbone.blocks.', 'blocks'),
        Rule('norm.', 'backbone.norm.', 'norm'),
    ),
)
