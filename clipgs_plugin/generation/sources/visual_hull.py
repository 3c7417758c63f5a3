"""Visual hull: points on the surface of an object, computed from its masks alone.

Source: Laurentini, "The Visual Hull Concept for Silhouette-Based Image Understanding", 1994.
"""
from __future__ import annotations

import warnings

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import Points, PosedImages, Surface
from clipgs_plugin.structures import MISSING_COLOR

_CELLS = 64          # along the longest side of the box
_OPAQUE = 0.5        # alpha from which a pixel belongs to the object
_FACING = 0.2        # minimum cosine between the normal and the direction of a view that contributes a colour
_AGREEMENT = 0.9     # fraction of the views of a point whose masks must cover it


def hull_points(posed: PosedImages, count: int, seed: int) -> Surface:
    """Draw points on the visual hull, the largest object that fits all masks.

    The bounding box of the masks is divided into cells. Cells whose centre falls outside a mask are removed, and points
    are drawn from the cells at the border of the rest. Concavities that no outline shows are filled.

    Args:
        posed: Images with masks, from all around. A mask that the image border cuts bounds nothing on that side, and
            an empty mask bounds nothing at all.
        count: Number of points N; with fewer cells a cell gives several.
        seed: Random seed of the draw.

    Returns:
        N points within about a cell of the hull, with outward normals. A colour is the median over the views that see
        the place, or the colour of the nearest place that a view sees.

    Raises:
        ValueError: The masks do not bound a box, or their intersection is empty.
    """
    low, high = hull_box(posed)
    step = float((high - low).max()) / _CELLS
    shape = np.maximum(np.ceil((high - low) / step - 1e-6).astype(int), 1)
    axes = [start + step * (0.5 + np.arange(n)) for start, n in zip(low, shape)]
    cells = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
    kept = np.flatnonzero(within_masks(cells, posed))
    if not len(kept):
        raise ValueError(f'no place is inside all {len(posed.images)} masks; the cameras or the masks are wrong, or '
                         f'the object is thinner than 1/{_CELLS} of its size')
    solid = np.zeros(len(cells), np.float32)
    solid[kept] = 1
    solid = np.pad(solid.reshape(shape), 3)
    from scipy import ndimage
    border = (solid > 0) & ~ndimage.binary_erosion(solid > 0)
    smooth = ndimage.gaussian_filter(solid, 1.5)
    places = np.argwhere(border)
    outward = -np.stack([slope[border] for slope in np.gradient(smooth)], -1)
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    # A sheet of one cell has no slope; any direction away from the middle is as good.
    normals = np.where(length > 1e-4, unit_vectors(outward), unit_vectors(places - places.mean(0) + 1e-3))
    # Move from the centre of the cell to where the smoothed solid is half full, about the surface.
    step_out = ((smooth[border, None] - 0.5) / np.maximum(length, 1e-4)).clip(0, 1)
    positions = low + step * (places - 3 + 0.5 + step_out * normals)

    rng = np.random.default_rng((seed, count))
    turns = -(-count // len(places))
    chosen = np.concatenate([rng.permutation(len(places)) for _ in range(turns)])[:count]
    shift = rng.uniform(-0.5, 0.5, (count, 3)) * step
    across = shift - (shift * normals[chosen]).sum(1, keepdims=True) * normals[chosen]
    colors = _colors(positions, normals, posed, step)[chosen]
    return Surface((positions[chosen] + across).astype(np.float32), normals[chosen].astype(np.float32), colors)


def hull_box(posed: PosedImages) -> tuple[ndarray, ndarray]:
    """Compute the bounding box of the intersection of the masks' rectangles: corners (3,) and (3,) float64.

    A side of a rectangle and its camera span a plane that bounds the object; linear programs over these half-spaces
    give the box.

    Raises:
        ValueError: The intersection is empty or unbounded.
    """
    rows, bounds = [], []
    for image, viewmat, matrix in zip(posed.images, posed.viewmats.astype(np.float64), posed.intrinsics):
        mask = image[..., 3] >= _OPAQUE
        if not mask.any():
            continue
        for axis, (size, covered) in enumerate(((mask.shape[1], mask.any(0)), (mask.shape[0], mask.any(1)))):
            first, last = np.flatnonzero(covered)[[0, -1]]
            # A mask may continue beyond the image border; the other sides get a pixel of tolerance.
            if first > 0:
                rows.append((first - 1 - matrix[axis, 2]) * viewmat[2] - matrix[axis, axis] * viewmat[axis])
            if last < size - 1:
                rows.append(matrix[axis, axis] * viewmat[axis] - (last + 2 - matrix[axis, 2]) * viewmat[2])
    if rows:
        from scipy.optimize import linprog
        rows = np.array(rows)
        rows /= np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
        for axis in np.concatenate([np.eye(3), -np.eye(3)]):
            found = linprog(axis, A_ub=rows[:, :3], b_ub=-rows[:, 3], bounds=(None, None), method='highs')
            if found.status == 2:
                raise ValueError(f'no place is inside the rectangles of all {len(posed.images)} masks; the cameras or '
                                 'the masks are wrong')
            bounds.append(axis @ found.x if found.status == 0 else None)
    if not bounds or any(bound is None for bound in bounds):
        raise ValueError(f'the masks of {len(posed.images)} images do not bound the object; provide masks and views '
                         'from several sides, or points of it')
    return np.array(bounds[:3]), -np.array(bounds[3:])


def within_masks(positions: ndarray, posed: PosedImages) -> ndarray:
    """Mark the positions (N, 3) that no mask excludes, (N,) bool.

    A mask excludes nothing outside its image or behind its camera, and an empty mask excludes nothing at all.
    """
    left = np.arange(len(positions))
    for image, viewmat, matrix in zip(posed.images, posed.viewmats, posed.intrinsics):
        mask = image[..., 3] >= _OPAQUE
        if mask.any():
            column, row, _, inside = _project(positions[left], viewmat, matrix, mask.shape)
            left = left[~inside | mask[row, column]]
    kept = np.zeros(len(positions), bool)
    kept[left] = True
    return kept


def points_of_object(posed: PosedImages) -> PosedImages:
    """Remove the points of the surroundings, next to which the object would be small.

    A point is kept if three views see it (all, if fewer have masks) and it falls on the masks of nine tenths of these;
    the rest is tolerance for rough outlines.
    """
    masks = posed.images[..., 3] >= _OPAQUE
    if posed.points is None or masks.all():
        return posed
    seen, on_mask = np.zeros((2, len(posed.points.positions)), int)
    for mask, viewmat, matrix in zip(masks, posed.viewmats, posed.intrinsics):
        if mask.any():
            column, row, _, inside = _project(posed.points.positions, viewmat, matrix, mask.shape)
            seen += inside
            on_mask += inside & mask[row, column]
    enough = min(3, int(masks.any((1, 2)).sum()))
    kept = (seen >= max(enough, 1)) & (on_mask >= _AGREEMENT * seen)
    if not kept.any():
        warnings.warn(f'none of {len(kept)} points lies on the object that the masks show; all are dropped',
                      stacklevel=2)
        return posed._replace(points=None)
    return posed._replace(points=Points(*(None if array is None else array[kept] for array in posed.points)))


def _project(positions: ndarray, viewmat: ndarray, matrix: ndarray,
             shape: tuple[int, int]) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Project positions (N, 3): column and row of their pixel, 0 outside the image; depth; and a mask of the inside."""
    seen = positions @ viewmat[:3, :3].T.astype(np.float64) + viewmat[:3, 3]
    depth = seen[:, 2]
    ahead = np.where(depth > 1e-6, depth, np.inf)
    column = np.floor(matrix[0, 0] * seen[:, 0] / ahead + matrix[0, 2])
    row = np.floor(matrix[1, 1] * seen[:, 1] / ahead + matrix[1, 2])
    inside = (depth > 1e-6) & (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    return np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int), depth, inside


def _colors(positions: ndarray, normals: ndarray, posed: PosedImages, step: float) -> ndarray:
    """Return the median colour over the views that see each cell of a surface, (N, 3) float32."""
    height, width = posed.images.shape[1:3]
    samples = np.full((len(posed.images), len(positions), 3), np.nan, np.float32)
    for sample, image, viewmat, matrix in zip(samples, posed.images, posed.viewmats, posed.intrinsics):
        column, row, depth, inside = _project(positions, viewmat, matrix, (height, width))
        if not inside.any():
            continue
        # Merge pixels until a cell covers a block, so that no farther cell shows between nearer ones.
        block = max(1, int(np.ceil(matrix[0, 0] * step / depth[inside].min())))
        blocks = (row // block) * (width // block + 1) + column // block
        nearest = np.full((height // block + 1) * (width // block + 1), np.inf)
        np.minimum.at(nearest, blocks[inside], depth[inside])
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        towards = eye - positions
        facing = (towards * normals).sum(1) > _FACING * np.linalg.norm(towards, axis=1)
        pixels = image[row, column]
        visible = inside & facing & (depth <= nearest[blocks] + 2 * step) & (pixels[:, 3] >= _OPAQUE)
        sample[visible] = pixels[visible, :3]
    seen = ~np.isnan(samples[..., 0]).all(0)
    if not seen.any():
        return np.full((len(positions), 3), MISSING_COLOR, np.float32)
    from scipy.spatial import cKDTree
    _, nearest_seen = cKDTree(positions[seen]).query(positions)
    return np.nanmedian(samples[:, seen], axis=0)[nearest_seen]
