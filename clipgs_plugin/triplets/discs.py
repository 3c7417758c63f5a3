"""Gaussians to begin with: thin discs on a surface."""
from __future__ import annotations

import math

import numpy as np
import torch

from clipgs_plugin.structures import SH_C0, GaussianCloud
from clipgs_plugin.triplets.objects import Surface

SPREAD = 0.6         # standard deviation of a disc, in RMS distances to its nearest neighbours
NEIGHBOURS = 3
THICKNESS = 0.1      # of a disc, in its standard deviations
ALONE = 0.05         # standard deviation of a disc without neighbours, in units of the frame
MIN_SIGMA = 1e-4
OPACITY = 0.9


def initialise(surface: Surface) -> GaussianCloud:
    """Gaussians as thin discs on a surface; a function of the surface alone.

    The standard deviation of a disc is 0.6 times the RMS distance to its three nearest neighbours, so that discs close
    the surface between them; its third axis is the normal.

    Args:
        surface: N points with normals and colours.

    Returns:
        N Gaussians of SH degree 0, in the order of the points.

    Raises:
        ValueError: The surface is empty, or its arrays do not fit one another.
    """
    from scipy.spatial import cKDTree
    points, count = np.asarray(surface.positions, np.float64), len(surface.positions)
    for name in ('positions', 'normals', 'colors'):
        found = np.shape(getattr(surface, name))
        if found != (count, 3) or count == 0:
            raise ValueError(f'surface: {name} has shape {found}, expected (N, 3) with one N of at least 1 for '
                             f'positions, normals and colors; positions has {np.shape(surface.positions)}')
    distances, _ = cKDTree(points).query(points, k=min(NEIGHBOURS + 1, count))
    sigma = SPREAD * np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1)) if count > 1 else np.full(1, ALONE)
    scales = np.maximum(sigma, MIN_SIGMA)[:, None] * np.array([1.0, 1.0, THICKNESS])
    fields = dict(means=points, quats=_turn_z_to(np.asarray(surface.normals, np.float64)), log_scales=np.log(scales),
                  opacity_logits=np.full(count, math.log(OPACITY / (1 - OPACITY))),
                  sh=((np.asarray(surface.colors, np.float64) - 0.5) / SH_C0)[:, None])
    return GaussianCloud(**{name: torch.from_numpy(value.astype(np.float32)) for name, value in fields.items()})


def _turn_z_to(normals: np.ndarray) -> np.ndarray:
    """Unit quaternions (N, 4) of the shortest turns that take z to unit normals (N, 3)."""
    x, y, z = normals.T
    quats = np.stack([1 + z, -y, x, np.zeros_like(z)], 1)
    quats[1 + z < 1e-6] = [0.0, 1.0, 0.0, 0.0]  # z to -z: half a turn about x
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)
