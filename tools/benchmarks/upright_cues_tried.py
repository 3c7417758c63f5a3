"""Cues for the up axis that were tried and are not in use: they help furniture, but not scanned objects."""
from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from clipgs_plugin.apis.upright_cues import AHEAD, PLANES, RIGHT, TRIMMED, UP, hull_of, sample
from clipgs_plugin.structures import GaussianCloud

TRIED = ('contact', 'filled', 'filled top', 'centred', 'second symmetry', 'walls')
CELLS = 24        # of the footprint of the unit sphere, along a side
NEIGHBOURS = 16   # of a point, to which a plane is fitted
FLAT = 0.05       # share of the variance of neighbours across their plane
THIN, THICK = 0.01, 0.06  # thickness of a slab at the bottom or top, in heights of the object


def tried_cues(cloud: GaussianCloud, seed: int = 0) -> ndarray:
    """Measure the further cues of each axis.

    Args:
        cloud: Object in any frame and of any size.
        seed: Seed of the sample of Gaussians.

    Returns:
        Cues, (6, 6) float64, with one row for each of ``ops.rotations.AXES`` and one column for each of ``TRIED``:

        - ``contact``: area of the hull of the lowest 1 % over that of the footprint.
        - ``filled``: share of the hull of the lowest 6 % that has points, which is low for legs.
        - ``filled top``: the same at the top.
        - ``centred``: distance of the lowest 3 % from the centre, seen from above, in radii; negative.
        - ``second symmetry``: that of the plane across the best vertical mirror plane.
        - ``walls``: share of the points on flat surfaces that are vertical.
    """
    from scipy.spatial import cKDTree
    points, _ = sample(cloud, seed)
    tree = cKDTree(points)
    near = points[tree.query(points, k=min(NEIGHBOURS, len(points)))[1]]
    near = near - near.mean(1, keepdims=True)
    variances, axes = np.linalg.eigh(np.einsum('nki,nkj->nij', near, near))
    flat, normals = variances[:, 0] < FLAT * variances.sum(1), axes[:, :, 0]
    rows = []
    for i in range(len(UP)):
        plan, height = np.stack([points @ RIGHT[i], points @ AHEAD[i]], 1), points @ UP[i]
        low, high = np.quantile(height, [TRIMMED, 1 - TRIMMED])
        level = (height - low) / max(high - low, 1e-6)
        bottom = plan[level <= THIN]
        rest = plan[level <= 0.03]
        rows.append([
            hull_of(bottom)[0] / max(hull_of(plan)[0], 1e-6),
            filled(plan[level <= THICK]), filled(plan[level >= 1 - THICK]),
            -float(np.linalg.norm(rest.mean(0) - plan.mean(0))) if len(rest) else 0.0,
            second_symmetry(points, tree, i), float((flat & (np.abs(normals @ UP[i]) < 0.15)).mean())])
    return np.array(rows)


def filled(plan: ndarray) -> float:
    """Return the area of cells with points over that of their hull, at most 2."""
    cell = (2 / CELLS) ** 2
    found = len(np.unique(np.floor((plan + 1) * CELLS / 2).astype(int), axis=0))
    return min(found * cell / max(hull_of(plan)[0], cell), 2.0)


def second_symmetry(points: ndarray, tree, axis: int) -> float:
    """Return the negative mean distance of points to their mirror images, at right angles to the best plane."""
    some = points[::max(1, len(points) // 512)]
    found = []
    for angle in np.arange(PLANES) * math.pi / PLANES:
        normal = math.cos(angle) * RIGHT[axis] + math.sin(angle) * AHEAD[axis]
        found.append(tree.query(some - 2 * (some @ normal)[:, None] * normal)[0].mean())
    return -float(found[(int(np.argmin(found)) + PLANES // 2) % PLANES])
