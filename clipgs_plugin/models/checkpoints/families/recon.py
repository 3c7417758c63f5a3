"""ReCon (Qi et al., ICML 2023).

A file uses Point-MAE's names and adds three global tokens, which attend to the patches in every block. Residuals start
from the normalised tensors, so the weights do not work in a block of Point-BERT.
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import Architecture, Family, Rule
from clipgs_plugin.models.checkpoints.families.point_mae import MAE_RULES, MAE_UNUSED, point_mae_architecture


def recon_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of a ReCon. No shape reveals the number of heads; they are assumed to be 64 wide."""
    architecture = point_mae_architecture(tensors, 'ReCon')
    del architecture.backbone['class_token']
    return architecture


RECON = Family(
    name='recon',
    backbone='ReCon',
    prefixes=('MAE_encoder.', ''),
    signature=('blocks.blocks.0.norm1_contrast.weight', 'encoder.first_conv.0.weight'),
    architecture=recon_architecture,
    rules=(
        *MAE_RULES,
        *(Rule(name, f'backbone.{name}') for name in ('img_token', 'img_pos', 'text_token', 'text_pos')),
    ),
    unused={
        **MAE_UNUSED,
        'img_proj': 'projection towards the image teacher of pre-training',
        'text_proj': 'projection towards the text teacher of pre-training',
        'img_encoder.': 'teacher of pre-training',
        'text_encoder.': 'teacher of pre-training',
        'clip_model.': 'teacher of pre-training',
    },
)
