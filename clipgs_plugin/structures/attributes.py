"""Channels of a Gaussian as input of a network.

The 14 raw channels have the order of the paper. Linearising them (CLIP-GS, Sec. 4.1, "Linear & Norm.") replaces the
quaternion by a 3x3 rotation matrix and applies a sigmoid to opacity and scale, which makes 19 channels. Indices of
channels occur only in this module.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from clipgs_plugin.ops.rotations import quaternion_to_matrix
from clipgs_plugin.structures.gaussian_batch import GaussianBatch
from clipgs_plugin.structures.gaussian_cloud import SH_C0, GaussianCloud

RAW_WIDTHS = {'xyz': 3, 'rgb': 3, 'opacity': 1, 'scale': 3, 'quat': 4}
FLATTEST = 8  # ratio of the axes from which a Gaussian counts as a disc or a needle
NUM_RAW = sum(RAW_WIDTHS.values())
RAW_SLICES: dict[str, slice] = {}
for _name, _width in RAW_WIDTHS.items():
    _start = sum(w for n, w in RAW_WIDTHS.items() if n in RAW_SLICES)
    RAW_SLICES[_name] = slice(_start, _start + _width)

SCALE_QUANTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    'sigmoid': torch.sigmoid,          # of the log scale, as in the paper; nearly constant on small objects
    'log': lambda log_scale: log_scale,
    'linear': torch.exp,
}


def pack(gaussians: GaussianBatch | GaussianCloud) -> Tensor:
    """Return raw channels (..., N, 14): position, sRGB, opacity logit, log scale, quaternion."""
    return torch.cat([gaussians.means, gaussians.rgb, gaussians.opacity_logits[..., None], gaussians.log_scales,
                      gaussians.quats], dim=-1)


def unpack(raw: Tensor, lengths: Tensor | None = None) -> GaussianBatch:
    """Return the Gaussians of raw channels (B, N, 14), the inverse of :func:`pack`, with SH degree 0.

    Args:
        raw: Raw channels in the order of :func:`pack`.
        lengths: Number of Gaussians of each object, (B,); the rest is padding. None means N.

    Raises:
        ValueError: The shape is wrong.
    """
    if raw.ndim != 3 or raw.shape[2] != NUM_RAW:
        raise ValueError(f'raw channels have shape {tuple(raw.shape)}, expected (B, N, {NUM_RAW}) of '
                         f'{", ".join(f"{name} {width}" for name, width in RAW_WIDTHS.items())}')
    if lengths is None:
        lengths = torch.full((len(raw),), raw.shape[1], device=raw.device)
    real = torch.arange(raw.shape[1], device=raw.device) < lengths[:, None]
    channels = {name: torch.where(real[..., None], raw[..., columns], 0) for name, columns in RAW_SLICES.items()}
    identity = raw.new_tensor([1.0, 0.0, 0.0, 0.0])
    return GaussianBatch(
        means=channels['xyz'], quats=torch.where(real[..., None], channels['quat'], identity),
        log_scales=channels['scale'], opacity_logits=channels['opacity'][..., 0],
        sh=torch.where(real[..., None], (channels['rgb'] - 0.5) / SH_C0, 0)[:, :, None], lengths=lengths)


def _log_covariance(raw: Tensor) -> Tensor:
    """Return the upper triangle of the log covariance R diag(2 log s) R^T, (..., 6), independent of axis labels."""
    return _rotated(raw, 2 * raw[..., RAW_SLICES['scale']])


def _shape(raw: Tensor) -> Tensor:
    """Return the upper triangle of the log covariance without the size, (..., 6), independent of axis labels.

    Scales are relative to the largest of the Gaussian, and none is below 1 / FLATTEST of it. So a ball is 0, thin and
    degenerate discs of one orientation are equal, and every value is bounded.
    """
    log_scales = raw[..., RAW_SLICES['scale']]
    relative = log_scales - log_scales.amax(-1, keepdim=True)
    return _rotated(raw, 2 * relative.clamp_min(-math.log(FLATTEST)))


def _rotated(raw: Tensor, diagonal: Tensor) -> Tensor:
    """Return the upper triangle of R diag(d) R^T, (..., 6), for d (..., 3)."""
    rotation = quaternion_to_matrix(raw[..., RAW_SLICES['quat']])
    matrix = (rotation * diagonal[..., None, :]) @ rotation.transpose(-1, -2)
    rows, columns = torch.triu_indices(3, 3, device=raw.device)
    return matrix[..., rows, columns]


def _unit_quaternion(raw: Tensor) -> Tensor:
    """Return unit quaternions with w >= 0, (..., 4)."""
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
    'shape': (6, lambda raw, _: _shape(raw)),
    # Input of Gaussian-MAE.
    'linear_scale': (3, lambda raw, _: raw[..., RAW_SLICES['scale']].exp()),
    'quat': (4, lambda raw, _: _unit_quaternion(raw)),
    'sh_dc': (3, lambda raw, _: (raw[..., RAW_SLICES['rgb']] - 0.5) / SH_C0),
}
# Position in the object; the only attribute that depends on the origin of the positions.
POSITION = 'position'

ATTRIBUTE_SETS = {
    'paper': ('xyz', 'rgb', 'opacity', 'scale', 'rotation'),
    'gauge_free': ('xyz', 'rgb', 'opacity', 'log_covariance'),
    'shape': ('xyz', 'rgb', 'opacity', 'shape'),
}


def attribute_names(attributes: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of linearised attributes, given the name of a set or a tuple of names.

    Raises:
        ValueError: Unknown name, or no name.
    """
    names = ATTRIBUTE_SETS.get(attributes, attributes) if isinstance(attributes, str) else tuple(attributes)
    if isinstance(names, str) or not names or set(names) - {*_LINEAR, POSITION}:
        raise ValueError(f'attributes={attributes!r}: expected one of {sorted(ATTRIBUTE_SETS)} or a tuple of names '
                         f'from {sorted([*_LINEAR, POSITION])}')
    return names


def num_channels(attributes: str | tuple[str, ...]) -> int:
    """Return the width of linearised attributes: 19 for ``'paper'``, 13 for ``'gauge_free'`` and ``'shape'``."""
    return sum(3 if name == POSITION else _LINEAR[name][0] for name in attribute_names(attributes))


def linearise(raw: Tensor, attributes: str | tuple[str, ...] = 'paper', scale: str = 'sigmoid',
              origin: Tensor | None = None) -> Tensor:
    """Linearise raw channels for a linear layer.

    Args:
        raw: Raw channels in the order of :func:`pack`, (..., 14).
        attributes: ``'paper'``, ``'gauge_free'``, ``'shape'`` or a tuple of names.
        scale: Quantity of the scale: ``'sigmoid'`` of the log scale, ``'log'`` or ``'linear'``.
        origin: Origin of the positions in the object, broadcast to (..., 3), for the attribute ``'position'``; None
            is 0.

    Returns:
        (..., num_channels(attributes)). ``q`` and ``-q`` return equal values.

    Raises:
        ValueError: Unknown attribute or scale.
    """
    if scale not in SCALE_QUANTITIES:
        raise ValueError(f'scale={scale!r}: expected one of {sorted(SCALE_QUANTITIES)}')

    def channels(name: str) -> Tensor:
        if name != POSITION:
            return _LINEAR[name][1](raw, scale)
        positions = raw[..., RAW_SLICES['xyz']]
        return positions if origin is None else positions + origin

    return torch.cat([channels(name) for name in attribute_names(attributes)], dim=-1)
