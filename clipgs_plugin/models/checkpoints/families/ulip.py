"""ULIP (Xue et al., CVPR 2023) and ULIP-2 (CVPR 2024) with their Point-BERT encoders.

A file stores the encoder as ``point_encoder.`` and the projection as the parameter ``pc_projection``, the P of
``x @ P``. It also holds the frozen CLIP model: SLIP in ULIP, a model of open_clip in ULIP-2.
"""
from functools import partial

from clipgs_plugin.models.checkpoints.families.family import Family, Rule
from clipgs_plugin.models.checkpoints.families.point_bert import POINT_BERT_RULES, point_bert_architecture

_FROZEN = 'part of the frozen CLIP model'

ULIP = Family(
    name='ulip',
    backbone='ULIP',
    prefixes=('point_encoder.',),
    signature=('reduce_dim.weight', 'encoder.first_conv.0.weight'),
    architecture=partial(point_bert_architecture, backbone='ULIP'),
    rules=POINT_BERT_RULES,
    outside=(Rule('pc_projection', 'projection.weight', 'transposed'),),
    unused={
        'logit_scale': 'temperature of training',
        'open_clip_model.': _FROZEN,
        'visual.': _FROZEN,
        'transformer.': _FROZEN,
        'token_embedding.': _FROZEN,
        'positional_embedding': _FROZEN,
        'ln_final.': _FROZEN,
        'image_projection': _FROZEN,
        'text_projection': _FROZEN,
        'point_encoder.cls_head_finetune.': 'classifier of fine-tuning',
    },
    projection_bias=False,
    same_layers=('PointBERT',),
    wrapper='state_dict',
)
