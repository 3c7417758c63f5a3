"""Gaussian-MAE (Ma et al., 3DV 2025) and Gaussian-JEPA (2026): Point-MAE on the 14 channels of Gaussians."""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipgs_plugin.models.checkpoints.families.point_mae import MAE_RULES, MAE_UNUSED, point_mae_architecture
from clipgs_plugin.models.checkpoints.family import PATCH_ENCODER, Architecture, Family


def gaussian_mae_architecture(tensors: Mapping[str, Tensor]) -> Architecture:
    """Sizes of a Gaussian-MAE, with the soft patch encoder or the plain one."""
    found = point_mae_architecture(tensors, 'GaussianMAE')
    temperatures = tensors.get(PATCH_ENCODER + 'n3_agg.learnable_temp')
    if temperatures is not None:
        found.tokenizer['patch_encoder'] |= dict(type='SoftPatchEncoder', num_neighbors=len(temperatures))
    return found


GAUSSIAN_MAE = Family(
    name='gaussian_mae',
    backbone='GaussianMAE',
    prefixes=('MAE_encoder.', 'JEPA_encoder.', ''),
    signature=('blocks.blocks.0.norm1.weight', 'encoder.first_conv.0.weight', 'norm.weight'),
    architecture=gaussian_mae_architecture,
    rules=MAE_RULES,
    absent=('reduce_dim.', 'norm1_contrast'),
    attributes={3: ('xyz',), 14: ('xyz', 'opacity', 'linear_scale', 'quat', 'sh_dc')},
    unused={
        **MAE_UNUSED,
        'encoder.n3_agg.nnn.log_temp': 'never used by the model itself',
        'opacity_head.': 'of pre-training only',
        'scale_head.': 'of pre-training only',
        'rotation_head.': 'of pre-training only',
        'sh_head.': 'of pre-training only',
        'teacher_': 'the teacher of pre-training',
        'pred': 'the predictor of pre-training',
        'query_token': 'the predictor of pre-training',
    },
)
