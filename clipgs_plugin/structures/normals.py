"""Normals of point clouds that have none."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

NEIGHBORS = 12  # for a normal, including the point itself


def estimate_normals(positions: ndarray, queries: ndarray) -> ndarray:
    """Estimate unit normals of a cloud, oriented away from its centroid.

    A normal is the direction of least variance of the 12 nearest points.

    Args:
        positions: Points of the cloud, (N, 3).
        queries: Places on the cloud, (M, 3).

    Returns:
        Normals at the queries, (M, 3) float32.

    Source: Hoppe et al., "Surface reconstruction from unorganized points", 1992, without its propagation of signs.
    """
    from scipy.spatial import cKDTree
    positions = positions.astype(np.float64)
    outward = queries - positions.mean(0)
    _, nearest = cKDTree(positions).query(queries.astype(np.float64), k=min(NEIGHBORS, len(positions)))
    patches = positions[nearest.reshape(len(queries), -1)]
    patches = patches - patches.mean(1, keepdims=True)
    variances, axes = np.linalg.eigh(patches.transpose(0, 2, 1) @ patches)
    # Coincident neighbours have no axis of least variance; the outward direction is the better guess.
    normals = np.where(variances[:, 2:] > 0, axes[:, :, 0], outward)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    normals[~normals.any(1)] = (0.0, 1.0, 0.0)
    inward = (normals * outward).sum(1, keepdims=True) < 0
    return np.where(inward, -normals, normals).astype(np.float32)
