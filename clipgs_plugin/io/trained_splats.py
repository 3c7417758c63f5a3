"""Checkpoints of gsplat's trainer and of nerfstudio's Splatfacto, read without running code from them.

gsplat's ``simple_trainer.py`` saves ``splats`` with ``means, scales, quats, opacities, sh0, shN``; Splatfacto saves
``pipeline`` with ``_model.gauss_params.`` before ``means, scales, quats, opacities, features_dc, features_rest``. Both
hold the raw values of a ``.ply``. The frame is that of the training.
"""
from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgs_plugin.io.safe_load import load_file
from clipgs_plugin.ops.spherical_harmonics import C0, MAX_DEGREE
from clipgs_plugin.structures import GaussianCloud

SUFFIXES = ('.ckpt', '.pt', '.pth')
_NAME = re.compile(r'(?:module\.)?(?:_model\.)?(?:gauss_params\.)?'
                   r'(means|scales|quats|opacities|sh0|shN|features_dc|features_rest)')
_RANK = re.compile(r'(.*_rank)\d+(\.\w+)')
_EXPECTED = 'means, scales, quats, opacities and sh0, shN (gsplat) or features_dc, features_rest (Splatfacto)'


def read(path: Path) -> GaussianCloud:
    """Read the Gaussians of a checkpoint; optimisers, cameras and networks in it are skipped.

    Raises:
        ValueError: The file is damaged, could run code, or holds no Gaussians of gsplat or Splatfacto.
    """
    fields = _fields(path, load_file(path))
    count = len(fields['means']) if fields['means'].ndim else 0
    if 'sh0' in fields:
        constant, rest = fields['sh0'], fields['shN']
    else:
        constant, rest = fields['features_dc'], fields['features_rest']
        constant = constant[:, None] if constant.ndim == 2 else constant
        if rest.shape[1:2] == (0,):  # Splatfacto of SH degree 0 trains colours before a sigmoid
            constant = (constant.sigmoid() - 0.5) / C0
    opacities = fields['opacities']
    opacities = opacities[:, 0] if opacities.ndim == 2 and opacities.shape[1] == 1 else opacities
    found = dict(means=fields['means'], quats=fields['quats'], log_scales=fields['scales'], opacity_logits=opacities,
                 constant=constant, rest=rest)
    bands = [(degree + 1) ** 2 - 1 for degree in range(MAX_DEGREE + 2)]
    expected = dict(means=(count, 3), quats=(count, 4), log_scales=(count, 3), opacity_logits=(count,),
                    constant=(count, 1, 3), rest=(count, rest.shape[1] if rest.ndim == 3 else 0, 3))
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape or (name == 'rest' and shape[1] not in bands):
            raise ValueError(f'{path}: {name} of shape {tuple(found[name].shape)} for {count} Gaussians, expected '
                             f'{shape}, for the harmonics (N, K, 3) with K one of {bands}; save it again')
    if rest.shape[1] == bands[-1]:
        warnings.warn(f'{path}: harmonics of degree 4 were cut to degree 3', stacklevel=3)
    others = _RANK.fullmatch(path.name)
    if others and len([*path.parent.glob(f'{others[1]}*{others[2]}')]) > 1:
        warnings.warn(f'{path}: holds the Gaussians of one process; read the files of the other ranks as well',
                      stacklevel=3)
    found['sh'] = torch.cat([found.pop('constant'), found.pop('rest')[:, :bands[-2]]], dim=1)
    return GaussianCloud(**{name: value.contiguous() for name, value in found.items()})


def _fields(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of the Gaussians by their last name, float32."""
    content = content if isinstance(content, Mapping) else {}
    state = next((content[key] for key in ('splats', 'pipeline') if isinstance(content.get(key), Mapping)), content)
    names = [(_NAME.fullmatch(key), key) for key in state if isinstance(key, str)]
    fields = {match[1]: state[key] for match, key in names if match and isinstance(state[key], Tensor)}
    needed, harmonics = {'means', 'scales', 'quats', 'opacities'}, ({'sh0', 'shN'}, {'features_dc', 'features_rest'})
    if not any(needed | names <= set(fields) for names in harmonics):
        kind = 'appearance features in place of harmonics' if needed <= set(fields) else 'no Gaussians'
        raise ValueError(f'{path}: a checkpoint with {kind}, expected {_EXPECTED}; export a .ply in the program that '
                         'wrote it')
    for name, value in fields.items():
        if value.layout != torch.strided or value.is_quantized or not value.is_floating_point() or value.is_meta or (
                value.numel() * value.element_size() > value.untyped_storage().nbytes()):
            raise ValueError(f'{path}: {name} is not a plain tensor of floats that the file holds in full; save it '
                             'again')
    return {name: value.detach().float() for name, value in fields.items()}
