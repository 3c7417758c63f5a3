"""ReCon (Qi et al., ICML 2023).

A file is named as Point-MAE's, with three global tokens and, in every block, the layers by which they look at the
patches. Its residuals are taken on the normalised tensors, so its weights mean nothing in a block of Point-BERT.
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.point_mae import MAE_RULES, MAE_UNUSED, point_mae_architecture
from clipgs_plugin.models.checkpoints.family import Architecture, Family, Rule


def recon_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Sizes of a ReCon; its heads are taken to be 64 wide, since no shape tells them."""
    found = point_mae_architecture(tensors, 'ReCon')
    del found.backbone['class_token']
    return found


RECON = Family(
    name='recon',
    backbone='ReCon',
    prefixes=('MAE_encoder.', ''),
    signature=('blocks.blocks.0.norm1_contrast.weight', 'encoder.first_conv.0.weight'),
    architecture=recon_architecture,
    rules=(
        *MAE_RULES,
        *(Rule(f'{kind}_{what}', f'backbone.{kind}_{what}') for kind in ('img', 'text') for what in ('token', 'pos')),
    ),
    unused={
        **MAE_UNUSED,
        'img_proj': 'the way to the image teacher of pre-training',
        'text_proj': 'the way to the text teacher of pre-training',
        'img_encoder.': 'a teacher of pre-training',
        'text_encoder.': 'a teacher of pre-training',
        'clip_model.': 'a teacher of pre-training',
    },
)
