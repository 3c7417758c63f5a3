"""The channels a network sees of a Gaussian: the one place that knows an index.

The paper's 14 raw channels, in its order, and what "linearising" them (CLIP-GS, Sec. 4.1, "Linear & Norm.") makes of
each: the quaternion becomes a 3x3 rotation matrix, opacity and scale go through a sigmoid, 19 channels in all.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clipgs_plugin.ops.rotations import quaternion_to_matrix
from clipgs_plugin.structures.gaussian_batch import GaussianBatch
from clipgs_plugin.structures.gaussian_cloud import SH_C0, GaussianCloud

RAW_WIDTHS = {'xyz': 3, 'rgb': 3, 'opacity': 1, 'scale': 3, 'quat': 4}
NUM_RAW = sum(RAW_WIDTHS.values())
RAW_SLICES: dict[str, slice] = {}
for _name, _width in RAW_WIDTHS.items():
    _start = sum(w for n, w in RAW_WIDTHS.items() if n in RAW_SLICES)
    RAW_SLICES[_name] = slice(_start, _start + _width)

SCALE_QUANTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,          # of the log scale: the paper's words; nearly constant on small objects
    'log': lambda log_scale: log_scale,
    'linear': torch.exp,
}


def pack(gaussians: GaussianBatch | GaussianCloud) -> Tensor:
    """The raw channels of every Gaussian, (..., N, 14): position, sRGB, opacity logit, log scale, quaternion."""
    return torch.cat([gaussians.means, gaussians.rgb, gaussians.opacity_logits[..., None], gaussians.log_scales,
                      gaussians.quats], dim=-1)


def _log_covariance(raw: Tensor) -> Tensor:
    """Upper triangle of log covariance R diag(2 log s) R^T, (..., 6): blind to the labelling of the axes."""
    rotation = quaternion_to_matrix(raw[..., RAW_SLICES['quat']])
    matrix = (rotation * (2 * raw[..., None, RAW_SLICES['scale']])) @ rotation.transpose(-1, -2)
    rows, columns = torch.triu_indices(3, 3, device=raw.device)
    return matrix[..., rows, columns]


def _unit_quaternion(raw: Tensor) -> Tensor:
    """Quaternions of length 1 with w >= 0, (..., 4)."""
    quats = torch.nn.functional.normalize(raw[..., RAW_SLICES['quat']], dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


# Width and function of each linearised attribute; functions take raw channels (..., 14) and the scale quantity.
_LINEAR: dict[str, tuple[int, Callable[[Tensor, str], Tensor]]] = {
    'xyz': (3, lambda raw, _: raw[..., RAW_SLICES['xyz']]),
    'rgb': (3, lambda raw, _: raw[..., RAW_SLICES['rgb']]),
    'opacity': (1, lambda raw, _: raw[..., RAW_SLICES['opacity']].sigmoid()),
    'scale': (3, lambda raw, quantity: SCALE_QUANTITIES[quantity](raw[..., RAW_SLICES['scale']])),
    'rotation': (9, lambda raw, _: quaternion_to_matrix(raw[..., RAW_SLICES['quat']]).flatten(-2)),
    'log_covariance': (6, lambda raw, _: _log_covariance(raw)),
    # What Gaussian-MAE sees.
    'linear_scale': (3, lambda raw, _: raw[..., RAW_SLICES['scale']].exp()),
    'quat': (4, lambda raw, _: _unit_quaternion(raw)),
    'sh_dc': (3, lambda raw, _: (raw[..., RAW_SLICES['rgb']] - 0.5) / SH_C0),
}
# The one attribute that needs to know what positions are relative to: where the Gaussian is in the object.
POSITION = 'position'

ATTRIBUTE_SETS = {
    'paper': ('xyz', 'rgb', 'opacity', 'scale', 'rotation'),
    'gauge_free': ('xyz', 'rgb', 'opacity', 'log_covariance'),
}


def attribute_names(attributes: str | tuple[str, ...]) -> tuple[str, ...]:
    """The linearised attributes of a named set, or of a tuple of names, checked."""
    names = ATTRIBUTE_SETS.get(attributes, attributes) if isinstance(attributes, str) else tuple(attributes)
    if isinstance(names, str) or not names or set(names) - {*_LINEAR, POSITION}:
        raise ValueError(f'attributes={attributes!r}: expected one of {sorted(ATTRIBUTE_SETS)} or a tuple of names '
                         f'from {sorted([*_LINEAR, POSITION])}')
    return names


def num_channels(attributes: str | tuple[str, ...]) -> int:
    """Width of the linearised attributes: 19 for ``'paper'``, 13 for ``'gauge_free'``."""
    return sum(3 if name == POSITION else _LINEAR[name][0] for name in attribute_names(attributes))


def linearise(raw: Tensor, attributes: str | tuple[str, ...] = 'paper', scale: str = 'sigmoid',
              origin: Tensor | None = None) -> Tensor:
    """Raw channels as numbers a linear layer can read.

    Args:
        raw: Channels as :func:`pack` orders them, (..., 14).
        attributes: ``'paper'``, ``'gauge_free'`` or a tuple of names.
        scale: Which quantity of the scale: ``'sigmoid'`` of the log scale, ``'log'`` or ``'linear'``.
        origin: What the positions are relative to, broadcasting to (..., 3), for the attribute ``'position'``; they
            are the object's own where None.

    Returns:
        (..., num_channels(attributes)). ``q`` and ``-q`` give the same values.
    """
    if scale not in SCALE_QUANTITIES:
        raise ValueError(f'scale={scale!r}: expected one of {sorted(SCALE_QUANTITIES)}')
    def channels(name: str) -> Tensor:
        if name != POSITION:
            return _LINEAR[name][1](raw, scale)
        positions = raw[..., RAW_SLICES['xyz']]
        return positions if origin is None else positions + origin

    return torch.cat([channels(name) for name in attribute_names(attributes)], dim=-1)
