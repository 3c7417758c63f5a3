"""ULIP (Xue et al., CVPR 2023) and ULIP-2 (CVPR 2024) with their Point-BERT encoders.

A file has the encoder as ``point_encoder.`` and its projection as the parameter ``pc_projection`` of ``x @ P``,
beside the frozen CLIP model: SLIP in ULIP, open_clip's in ULIP-2.
"""
from functools import partial

from clipgs_plugin.models.checkpoints.families.point_bert import POINT_BERT_RULES, point_bert_architecture
from clipgs_plugin.models.checkpoints.family import Family, Rule

_FROZEN = 'of the frozen CLIP model'

ULIP = Family(
    name='ulip',
    backbone='ULIP',
    prefixes=('point_encoder.',),
    signature=('reduce_dim.weight', 'encoder.first_conv.0.weight'),
    architecture=partial(point_bert_architecture, backbone='ULIP'),
    rules=POINT_BERT_RULES,
    outside=(Rule('pc_projection', 'projection.weight', 'transposed'),),
    unused={
        'logit_scale': 'the temperature of training',
        'open_clip_model.': _FROZEN,
        'visual.': _FROZEN,
        'transformer.': _FROZEN,
        'token_embedding.': _FROZEN,
        'positional_embedding': _FROZEN,
        'ln_final.': _FROZEN,
        'image_projection': _FROZEN,
        'text_projection': _FROZEN,
        'point_encoder.cls_head_finetune.': 'the classifier of fine-tuning',
    },
    projection_bias=False,
)
