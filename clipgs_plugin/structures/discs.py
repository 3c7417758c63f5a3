"""Gaussians as thin discs on a surface."""
from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.structures.gaussian_cloud import SH_C0, GaussianCloud

SPREAD = 0.6      # standard deviation of a disc, in RMS distances to its nearest neighbours
NEIGHBOURS = 3
MIN_SIGMA = 1e-4  # standard deviation of a disc, in units of the frame


def surface_discs(
    positions: ndarray,               # (N, 3)
    normals: ndarray,                 # (N, 3) unit
    colors: ndarray,                  # (N, 3) sRGB in [0, 1]
    *,
    opacity: float | ndarray = 0.9,   # scalar or (N,)
    thickness: float = 0.1,
    twist: ndarray | None = None,     # (N,) radians
    alone: float = 0.05,
) -> GaussianCloud:
    """Cover a surface with Gaussians that are thin discs; equal arguments return equal bytes.

    The standard deviation of a disc is 0.6 times the RMS distance to its three nearest neighbours, so that discs close
    the surface between them. The third axis of a disc is the normal.

    Args:
        positions: Points of the surface, (N, 3).
        normals: Unit normals, (N, 3).
        colors: sRGB in [0, 1], (N, 3).
        opacity: Opacity of all discs or of each disc, (N,); above 0 and below 1.
        thickness: Standard deviation along the normal, in standard deviations of the disc.
        twist: Angle of each disc about its normal in radians, (N,); None keeps the shortest turn from z to the normal.
        alone: Standard deviation of a single disc without neighbours, in units of the frame.

    Returns:
        N Gaussians of SH degree 0, float32, in the order of the points.

    Raises:
        ValueError: The surface has no points, or the shapes of the arrays do not match.
    """
    from scipy.spatial import cKDTree
    points, count = np.asarray(positions, np.float64), len(positions)
    for name, value in dict(positions=positions, normals=normals, colors=colors).items():
        if np.shape(value) != (count, 3) or count == 0:
            raise ValueError(f'surface: {name} has shape {np.shape(value)}, expected (N, 3) with one N of at least 1 '
                             f'for positions, normals and colors; positions has {np.shape(positions)}')
    distances, _ = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, count))
    sigma = SPREAD * np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1)) if count > 1 else np.full(1, alone)
    scales = np.maximum(sigma, MIN_SIGMA)[:, None] * np.array([1.0, 1.0, thickness])
    alpha = np.broadcast_to(np.asarray(opacity, np.float64), (count,))
    axes = np.asarray(normals, np.float64)
    fields = dict(means=points, quats=_turns_from_z(axes) if twist is None else _twisted_turns_from_z(axes, twist),
                  log_scales=np.log(scales), opacity_logits=np.log(alpha / (1 - alpha)),
                  sh=((np.asarray(colors, np.float64) - 0.5) / SH_C0)[:, None])
    return GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})


def _turns_from_z(normals: ndarray) -> ndarray:
    """Return unit quaternions (N, 4) of the shortest turns that take z to normals (N, 3) of about unit length."""
    x, y, z = normals.T
    quats = np.stack([1 + z, -y, x, np.zeros_like(z)], 1)
    quats[1 + z < 1e-6] = [0.0, 1.0, 0.0, 0.0]  # z to -z: half a turn about x
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


# The half-angle form differs from the form above in the last bit, and near -z. Both are kept, because the bytes of
# written datasets depend on them.

def _twisted_turns_from_z(normals: ndarray, twist: ndarray) -> ndarray:
    """Return quaternions (N, 4) that turn by ``twist`` (N,) about z, then take z to unit normals (N, 3)."""
    x, y, z = normals.T
    w = np.sqrt(np.maximum((1 + z) / 2, 0))
    flipped = w < 1e-6  # z to -z: half a turn about x
    a = np.where(flipped, 1.0, -y / (2 * np.where(flipped, 1, w)))
    b = np.where(flipped, 0.0, x / (2 * np.where(flipped, 1, w)))
    c, s = np.cos(twist / 2), np.sin(twist / 2)
    return np.stack([w * c, a * c + b * s, b * c - a * s, w * s], 1)
