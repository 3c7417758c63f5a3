"""Gaussian-MAE (Ma et al., 3DV 2025) and Gaussian-JEPA (2026): Point-MAE on the 14 channels of Gaussians."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.family import PATCH_ENCODER, Architecture, Family
from clipgs_plugin.models.checkpoints.families.point_mae import MAE_RULES, MAE_UNUSED, point_mae_architecture


def gaussian_mae_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Read the sizes of a Gaussian-MAE with the soft or the plain patch encoder."""
    architecture = point_mae_architecture(tensors, 'GaussianMAE')
    temperatures = tensors.get(PATCH_ENCODER + 'n3_agg.learnable_temp')
    if temperatures is not None:
        architecture.tokenizer['patch_encoder'] |= dict(type='SoftPatchEncoder', num_neighbors=len(temperatures))
    return architecture


GAUSSIAN_MAE = Family(
    name='gaussian_mae',
    backbone='GaussianMAE',
    prefixes=('MAE_encoder.', 'JEPA_encoder.', ''),
    signature=('blocks.blocks.0.norm1.weight', 'encoder.first_conv.0.weight', 'norm.weight'),
    architecture=gaussian_mae_architecture,
    rules=MAE_RULES,
    absent=('reduce_dim.', 'norm1_contrast'),
    same_layers=('PointMAE',),
    attributes={3: ('xyz',), 14: ('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc')},
    unused={
        **MAE_UNUSED,
        'encoder.n3_agg.nnn.log_temp': 'never used in the forward pass',
        'opacity_head.': 'used only in pre-training',
        'scale_head.': 'used only in pre-training',
        'rotation_head.': 'used only in pre-training',
        'sh_head.': 'used only in pre-training',
        'teacher_': 'teacher of pre-training',
        'pred': 'predictor of pre-training',
        'query_token': 'predictor of pre-training',
    },
)
