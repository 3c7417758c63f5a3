"""The walls of a scene."""
from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.datasets.transforms.surroundings import MAX_BELOW, across
from clipgs_plugin.ops.rotations import axis_vector
from clipgs_plugin.scenes.cells import Cells
from clipgs_plugin.scenes.floor import DEVIATIONS, MIN_OPACITY, extent_of, find_floor
from clipgs_plugin.structures import GaussianCloud

MIN_COVER = 0.7  # share of a wall's width that has Gaussians
_TRIALS = 300    # lines through two Gaussians, seen from above
_SAMPLE = 5000   # Gaussians that vote for a line
_ENDS = (0.01, 0.99)


def find_walls(
    cloud: GaussianCloud,
    floor: Tensor,  # (N,) bool
    up: str = 'y',
    thickness: float = 0.015,
    min_share: float = 0.05,
    min_width: float = 0.5,
    max_walls: int = 4,
) -> Tensor:
    """Find the Gaussians of the walls around a floor, and of what is behind them.

    Seen from above, a wall is a line. RANSAC finds the line of the most occupied cells off the floor among those that
    little lies behind. It is a wall if it runs along the floor without large gaps. Another wall is searched among what
    is left.
    Without a floor there are no walls, because the sides of a single object would look like them.

    Args:
        cloud: Scene in any unit.
        floor: Mask of the floor, by :func:`find_floor`.
        up: Up axis.
        thickness: Largest distance of a Gaussian of a wall, in extents (radii around the median that hold 90 % of the
            Gaussians).
        min_share: Least share on a wall of the occupied cells off the floor.
        min_width: Least width of a wall, in widths of the floor along it.
        max_walls: Largest number of walls.

    Returns:
        Mask of the Gaussians, (N,) bool.

    Raises:
        ValueError: An option is out of range.
    """
    if not (thickness > 0 and 0 < min_share < 1 and min_width > 0 and max_walls >= 0):
        raise ValueError(f'thickness={thickness}, min_share={min_share}, min_width={min_width}, max_walls={max_walls}: '
                         'expected positive numbers and a share below 1')
    seen, ground = (cloud.opacities > MIN_OPACITY).numpy(), floor.numpy()
    rest = ~ground
    if not (ground & seen).any() or (rest & seen).sum() < 4:
        return torch.zeros(len(cloud), dtype=torch.bool)
    points = cloud.means.double().numpy()
    most = thickness * extent_of(points[seen])
    flat = points @ across(axis_vector(up).double().numpy())
    for _ in range(max_walls if most > 0 else 0):
        left = np.flatnonzero(rest & seen)
        if len(left) < 4:
            break
        thin = left[Cells(points[left], most).first]
        behind = _wall(flat[thin], flat[ground & seen], flat, most, min_share, min_width)
        if behind is None:
            break
        rest &= ~behind
    return torch.from_numpy(~rest & ~ground)


def find_room(cloud: GaussianCloud, up: str = 'y') -> Tensor:
    """Find the Gaussians of the floor and the walls, (N,) bool, by :func:`find_floor` and :func:`find_walls`."""
    floor = find_floor(cloud, up)
    walls = find_walls(cloud, floor, up)
    return walls | find_floor(cloud, up, walls=walls) if walls.any() else floor


def _wall(points: ndarray, ground: ndarray, everything: ndarray, most: float, min_share: float,
          min_width: float) -> ndarray | None:
    """Return the mask, of all Gaussians (N, 2), of a wall that points (n, 2) show and of what is behind, or None."""
    normal, offset = _line(points, most)
    distances = points @ normal - offset
    near = distances[abs(distances) <= most]
    beyond, before = float((distances < -most).mean()), float((distances > most).mean())
    if beyond > before:
        normal, offset, distances, near, beyond, before = -normal, -offset, -distances, -near, before, beyond
    if len(near) < min_share * len(points) or beyond > MAX_BELOW * (beyond + before):
        return None
    along = np.array([-normal[1], normal[0]])
    places = points[abs(distances) <= most] @ along
    low, high = np.quantile(places, _ENDS)
    first, last = np.quantile(ground @ along, _ENDS)
    bins = np.unique(np.floor((places - low) / (4 * most)))
    if high - low < min_width * (last - first) or len(bins) * 4 * most < MIN_COVER * (high - low):
        return None
    limit = min(most, DEVIATIONS * 1.4826 * float(np.median(abs(near - np.median(near)))) + 1e-3 * most)
    return everything @ normal - offset <= limit


def _line(points: ndarray, thickness: float) -> tuple[ndarray, float]:
    """Return the unit normal and the offset of the line with the most of points (n, 2) and few of them on one side."""
    rng = np.random.default_rng(0)
    sample = points[np.sort(rng.permutation(len(points))[:_SAMPLE])]
    ends = sample[rng.integers(len(sample), size=(_TRIALS, 2))]
    steps = ends[:, 1] - ends[:, 0]
    lengths = np.linalg.norm(steps, axis=1)
    ends, steps = ends[lengths > 0], steps[lengths > 0] / lengths[lengths > 0, None]
    if not len(ends):
        return np.array([1.0, 0.0]), float(sample[0, 0])
    normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    offsets = (ends[:, 0] * normals).sum(1)
    distances = sample @ normals.T - offsets  # (sample, trials)
    sides = (distances > thickness).sum(0), (distances < -thickness).sum(0)
    few = np.minimum(*sides) <= MAX_BELOW * np.add(*sides)
    best = int(np.argmax(np.where(few, len(sample) - np.add(*sides), -1)))
    normal, offset = normals[best], float(offsets[best])
    for _ in range(3):
        near = points[abs(points @ normal - offset) <= thickness]
        if len(near) >= 2:
            normal = np.linalg.svd(near - near.mean(0), full_matrices=False)[2][-1]
            offset = float(near.mean(0) @ normal)
    return normal, offset
