"""Removal of the surroundings of an object in a capture: a crop, the plane it stands on, other clusters."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.datasets.transforms.floaters import EXTENT_QUANTILE, MAX_CELL
from clipgs_plugin.ops.rotations import axis_vector
from clipgs_plugin.registry import TRANSFORMS

TRIALS = 300       # planes through three Gaussians that are tried
SAMPLE = 5000      # Gaussians that vote for a plane
MAX_BELOW = 0.05   # share of the Gaussians below the plane, of those off it
CONTACT = 4        # height of the zone of contact, in thicknesses
SPACINGS = 4       # distance of connected points of contact, in medians of the distance to the nearest


@TRANSFORMS.register_module()
class CropGaussians(BaseTransform):
    """Crop to a box; the number of dropped Gaussians is ``results['cropped']``.

    Args:
        low: Least x, y and z, in the frame and unit of the object.
        high: Greatest x, y and z.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        if not (len(low) == len(high) == 3 and all(a < b for a, b in zip(low, high))):
            raise ValueError(f'low={low}, high={high}: expected three numbers each, those of low '
                             'below those of high')
        self.low, self.high = tuple(low), tuple(high)

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        means = cloud.means.double()
        inside = ((means >= torch.tensor(self.low).double()) & (means <= torch.tensor(self.high).double())).all(1)
        if not inside.any():
            box = [[round(float(x), 4) for x in end] for end in (means.amin(0), means.amax(0))]
            raise ValueError(f'the crop from {list(self.low)} to {list(self.high)} holds none of {len(cloud)} '
                             f'Gaussians, which lie from {box[0]} to {box[1]}')
        results.update(gaussians=cloud[inside], cropped=int((~inside).sum()))
        return results


@TRANSFORMS.register_module()
class RemovePlane(BaseTransform):
    """Removal of the table or floor that an object stands on.

    RANSAC finds the plane about perpendicular to the up axis that holds the most Gaussians. It is removed if it is a
    support: little lies below it, and it reaches beyond the object. Otherwise the object is unchanged. Gaussians of the
    plane within the outline of a contact with the object stay, because they may be its underside. The number of removed
    Gaussians is ``results['plane']``.

    Args:
        up: Up axis.
        thickness: Largest distance of a Gaussian of the plane, in extents (radii that hold 90 % of the Gaussians).
        min_share: Minimum share of the Gaussians on the plane.
        max_tilt: Largest angle of the normal to the up axis, in degrees.
        reach: Minimum area of the plane, in areas of the object seen from above.
    """

    def __init__(self, up: str = 'y', thickness: float = 0.015, min_share: float = 0.05, max_tilt: float = 20.0,
                 reach: float = 1.3) -> None:
        if thickness <= 0 or reach <= 0:
            raise ValueError(f'thickness={thickness}, reach={reach}: expected numbers above 0')
        if not (0 < min_share < 1 and 0 <= max_tilt < 90):
            raise ValueError(f'min_share={min_share}, max_tilt={max_tilt}: expected a share in (0, 1) and degrees '
                             'in [0, 90)')
        self.up, self.thickness, self.min_share, self.max_tilt, self.reach = up, thickness, min_share, max_tilt, reach
        self._axis = axis_vector(up).numpy()

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        points = cloud.means.double().numpy()
        removed = self._plane(points - np.median(points, axis=0))
        results.update(gaussians=cloud[torch.from_numpy(~removed)] if removed.any() else cloud,
                       plane=int(removed.sum()))
        return results

    def _plane(self, points: ndarray) -> ndarray:
        """Return the mask of Gaussians to remove, (N,); none if there is no support."""
        nothing = np.zeros(len(points), bool)
        thickness = self.thickness * float(np.quantile(np.linalg.norm(points, axis=1), EXTENT_QUANTILE))
        found = fit_plane(points, self._axis, thickness, math.cos(math.radians(self.max_tilt)))
        if found is None:
            return nothing
        normal, offset = found
        heights = points @ normal - offset
        on, above, below = abs(heights) <= thickness, heights > thickness, heights < -thickness
        if on.mean() < self.min_share or below.sum() > MAX_BELOW * (above.sum() + below.sum()) or above.sum() < 4:
            return nothing
        flat = points @ across(normal)
        if hull_area(flat[on]) < self.reach * hull_area(core_of(flat[above])):
            return nothing
        contact = flat[above & (heights < (1 + CONTACT) * thickness)]
        kept = on.copy()
        kept[on] = within_contacts(flat[on], contact, 2 * thickness)
        return (on & ~kept) | below


@TRANSFORMS.register_module()
class LargestCluster(BaseTransform):
    """Selection of the largest connected group of Gaussians; the number of others is ``results['other_clusters']``.

    Gaussians of the same or of neighbouring cells of a grid are connected. So two within ``radius`` of each other
    always are, and two farther than ``2 sqrt(3) radius`` need others in between.

    Args:
        radius: Side of the cells, in extents (radii around the median that hold 90 % of the Gaussians).
    """

    def __init__(self, radius: float = 0.05) -> None:
        if radius <= 0:
            raise ValueError(f'radius={radius}: expected extents above 0')
        self.radius = radius

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        points = cloud.means.double().numpy()
        points = points - np.median(points, axis=0)
        extent = float(np.quantile(np.linalg.norm(points, axis=1), EXTENT_QUANTILE))
        labels = clusters(points, self.radius * extent)
        kept = labels == np.bincount(labels).argmax()
        results.update(gaussians=cloud[torch.from_numpy(kept)], other_clusters=int((~kept).sum()))
        return results


def clusters(
    points: ndarray,  # (N, D) float64
    side: float,
) -> ndarray:         # (N,) int
    """Number the connected groups of points on a grid of cells, where all neighbours of a cell are connected."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    if side <= 0:
        return np.zeros(len(points), int)
    cells = np.clip(np.floor(points / side), -MAX_CELL / 2 + 1, MAX_CELL / 2 - 2).astype(np.int64) + MAX_CELL // 2
    factors = MAX_CELL ** np.arange(points.shape[1], dtype=np.int64)
    keys, cell = np.unique(cells @ factors, return_inverse=True)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * points.shape[1]), -1).reshape(-1, points.shape[1]) @ factors
    rows, columns = [], []
    for step in steps[steps > 0]:
        place = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        neighbours = np.flatnonzero(keys[place] == keys + step)
        rows.append(neighbours)
        columns.append(place[neighbours])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(row), bool), (row, column)), shape=(len(keys), len(keys)))
    return connected_components(graph, directed=False)[1][cell.reshape(-1)]


def fit_plane(points: ndarray, axis: ndarray, thickness: float, min_cosine: float) -> tuple[ndarray, float] | None:
    """Return the unit normal, along the axis, and the offset of the plane with the most points, or None."""
    rng = np.random.default_rng(0)
    sample = points[np.sort(rng.permutation(len(points))[:SAMPLE])]
    if len(sample) < 3 or thickness == 0:
        return None
    corners = sample[rng.integers(len(sample), size=(TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    normals *= np.sign(normals @ axis)[:, None]
    level = np.broadcast_to(axis, normals.shape)  # a level plane through each first corner as well
    normals, corners = np.concatenate([normals, level]), np.concatenate([corners[:, 0], corners[:, 0]])
    usable = normals @ axis >= min_cosine
    normals, offsets = normals[usable], (corners * normals).sum(1)[usable]
    votes = [int((abs(sample @ normal - offset) <= thickness).sum()) for normal, offset in zip(normals, offsets)]
    best = int(np.argmax(votes))
    normal, offset = normals[best], offsets[best]
    for _ in range(3):
        near = points[abs(points @ normal - offset) <= thickness]
        refined = np.linalg.svd(near - near.mean(0), full_matrices=False)[2][-1] if len(near) >= 3 else normal
        refined = refined * (1.0 if refined @ axis >= 0 else -1.0)
        if refined @ axis < min_cosine:
            break
        normal, offset = refined, float(near.mean(0) @ refined)
    return normal, float(offset)


def across(normal: ndarray) -> ndarray:
    """Return two unit vectors perpendicular to a unit vector and to each other, (3, 2)."""
    return np.linalg.svd(normal[None])[2][1:].T


def core_of(points: ndarray) -> ndarray:
    """Return points (n, 2) without the outermost 2 % along each axis."""
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    return points[((points >= low) & (points <= high)).all(1)]


def hull_area(points: ndarray) -> float:
    """Return the area of the convex hull of points (n, 2), 0 if they lie on a line."""
    from scipy.spatial import ConvexHull, QhullError
    try:
        return float(ConvexHull(points).volume)
    except (QhullError, ValueError):  # on a line, or none
        return 0.0


def within_contacts(points: ndarray, contact: ndarray, side: float) -> ndarray:
    """Return the mask of points (n, 2) inside the convex hull of a connected group of points of contact (m, 2)."""
    from scipy.spatial import Delaunay, QhullError, cKDTree
    inside = np.zeros(len(points), bool)
    if len(contact) < 3:
        return inside
    nearest = cKDTree(contact).query(contact, [2])[0]
    labels = clusters(contact, max(side, SPACINGS * float(np.median(nearest))))
    for label in np.flatnonzero(np.bincount(labels) >= 3):
        try:
            inside |= Delaunay(contact[labels == label]).find_simplex(points) >= 0
        except QhullError:  # on a line
            continue
    return inside
