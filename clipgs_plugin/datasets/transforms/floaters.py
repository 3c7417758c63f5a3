"""Removal of Gaussians that float far from the object."""
from __future__ import annotations

import math

import numpy as np

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS

EXTENT_QUANTILE = 0.9  # robust to floaters and, unlike the median, to a dense detail
MAX_CELL = 2 ** 20     # cells along an axis; three indices fit into an int64


@TRANSFORMS.register_module()
class DropFloaters(BaseTransform):
    """Removal of floaters, a few Gaussians far from the object or far larger than it, as captures leave them.

    A single far Gaussian shrinks the object in the unit sphere, and farthest point sampling picks all of them. Lengths
    are in units of the extent of the object: the distance from its median position within which 90 % of its Gaussians
    lie. The number of floaters is ``results['floaters']``.

    Args:
        isolation: Minimum distance of a floater to its ``neighbours``-th neighbour, in extents. Thin parts of real
            objects reach 0.6.
        neighbours: Number of neighbours. Clumps of more floaters are kept.
        size: Minimum standard deviation of a floater along its longest axis, in extents.
        max_share: Maximum share of floaters. An object with more is unchanged, because they are a sparse part of it.
    """

    def __init__(self, isolation: float = 0.75, neighbours: int = 8, size: float = 1.0,
                 max_share: float = 0.02) -> None:
        if not (isolation > 0 and size > 0):
            raise ValueError(f'isolation={isolation}, size={size}: expected extents above 0')
        if neighbours < 1:
            raise ValueError(f'neighbours={neighbours}: expected at least 1')
        if not 0 <= max_share < 0.5:
            raise ValueError(f'max_share={max_share}: expected a share of at least 0 and less than 0.5')
        self.isolation = isolation
        self.neighbours = neighbours
        self.size = size
        self.max_share = max_share

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        most = int(self.max_share * len(cloud))
        results['floaters'] = 0
        if most == 0:
            return results
        offsets = cloud.means.double().numpy()
        offsets = offsets - np.median(offsets, axis=0)
        extent = float(np.quantile(np.linalg.norm(offsets, axis=1), EXTENT_QUANTILE))
        floating = cloud.log_scales.amax(-1).double().exp().numpy() > self.size * extent
        floating |= isolated(offsets, self.isolation * extent, min(self.neighbours, len(cloud) - 1))
        count = int(floating.sum())
        if 0 < count <= most:
            results.update(gaussians=cloud[~floating], floaters=count)
        return results


def isolated(
    points: np.ndarray,  # (N, 3) float64
    radius: float,
    neighbours: int,
) -> np.ndarray:         # (N,) bool
    """Return the mask of points with fewer than ``neighbours`` others within a radius.

    All points of a grid cell of more points are within the radius of each other. So only points of sparse cells, few
    in a dense cloud, are queries.
    """
    from scipy.spatial import cKDTree
    if radius == 0:
        return np.zeros(len(points), bool)
    cells = np.clip(np.floor(points * (math.sqrt(3) / radius)), -MAX_CELL / 2, MAX_CELL / 2 - 1).astype(np.int64)
    beyond = (cells == -MAX_CELL // 2).any(1) | (cells == MAX_CELL // 2 - 1).any(1)
    keys = (cells + MAX_CELL // 2) @ np.array([MAX_CELL ** 2, MAX_CELL, 1])
    _, cell, counts = np.unique(keys, return_inverse=True, return_counts=True)
    queries = np.flatnonzero((counts[cell] <= neighbours) | beyond)
    mask = np.zeros(len(points), bool)
    if len(queries):
        tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
        # A bound far below the distances of floaters keeps the search short; the first neighbour is the point itself.
        distances, _ = tree.query(points[queries], [neighbours + 1], distance_upper_bound=radius * (1 + 1e-9))
        mask[queries] = distances[:, 0] > radius
    return mask
