"""The floor or table of a scene."""
from __future__ import annotations

import math

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.datasets.transforms.floaters import EXTENT_QUANTILE
from clipgs_plugin.datasets.transforms.surroundings import (
    MAX_BELOW,
    across,
    core_of,
    fit_plane,
    hull_area,
    within_contacts,
)
from clipgs_plugin.ops.rotations import axis_vector
from clipgs_plugin.scenes.cells import Cells
from clipgs_plugin.structures import GaussianCloud

CONTACT = 3      # height of the zone of contact, in thicknesses
DEVIATIONS = 4   # thickness of a floor, in standard deviations of its Gaussians
MIN_OPACITY = 0.1


def find_floor(
    cloud: GaussianCloud,
    up: str = 'y',
    thickness: float = 0.015,
    min_share: float = 0.03,
    max_tilt: float = 20.0,
    reach: float = 0.6,
    walls: Tensor | None = None,  # (N,) bool
) -> Tensor:
    """Find the Gaussians of the floor, or of the table, that the objects of a scene stand on, and of what is below.

    RANSAC finds the plane about perpendicular to the up axis of the largest area, which is a number of occupied cells,
    because detailed objects have far more Gaussians than a floor. It is a floor if little lies below it and it is about
    as large as the rest of the scene seen from above. Its thickness is that of its Gaussians, ``thickness`` at most.
    Gaussians within the outline of a contact with an object are the object's underside.

    Args:
        cloud: Scene in any unit.
        up: Up axis.
        thickness: Largest distance of a Gaussian of the floor, in extents (radii around the median that hold 90 % of
            the Gaussians).
        min_share: Least share of the occupied cells on the floor.
        max_tilt: Largest angle of the normal to the up axis, in degrees.
        reach: Least area of the floor, in areas of the rest seen from above.
        walls: Mask of Gaussians that touch the floor and are no object, whose outline would hold all of it.

    Returns:
        Mask of the Gaussians, (N,) bool; none if there is no floor.

    Raises:
        ValueError: An option is out of range.
    """
    if not (thickness > 0 and reach > 0 and 0 < min_share < 1 and 0 <= max_tilt < 90):
        raise ValueError(f'thickness={thickness}, min_share={min_share}, max_tilt={max_tilt}, reach={reach}: expected '
                         'positive numbers, a share below 1 and degrees below 90')
    nothing = torch.zeros(len(cloud), dtype=torch.bool)
    seen = (cloud.opacities > MIN_OPACITY).numpy()
    if seen.sum() < 4:
        return nothing
    points = cloud.means.double().numpy()
    points = points - np.median(points, axis=0)
    most = thickness * extent_of(points[seen])
    found = _largest_plane(points[seen], axis_vector(up).numpy(), most, math.cos(math.radians(max_tilt)), min_share)
    if found is None:
        return nothing
    normal, offset = found
    heights = points @ normal - offset
    near = heights[seen & (abs(heights) <= most)]
    limit = min(most, DEVIATIONS * 1.4826 * float(np.median(abs(near - np.median(near)))) + 1e-3 * most)
    on, above = abs(heights) <= limit, heights > limit
    flat = points @ across(normal)
    if (above & seen).sum() < 4 or hull_area(flat[on & seen]) < reach * hull_area(core_of(flat[above & seen])):
        return nothing
    # Faint Gaussians near the floor are its haze, and connect contacts of all objects.
    touching = above & seen & (heights < (1 + CONTACT) * limit)
    contact = flat[touching if walls is None else touching & ~walls.numpy()]
    kept = on.copy()
    kept[on] = within_contacts(flat[on], contact, 2 * limit)
    return torch.from_numpy((on & ~kept) | (heights < -limit))


def extent_of(points: ndarray) -> float:
    """Return the radius around the median of points (N, 3) that holds 90 % of them."""
    return float(np.quantile(np.linalg.norm(points - np.median(points, axis=0), axis=1), EXTENT_QUANTILE))


def _largest_plane(points: ndarray, axis: ndarray, thickness: float, min_cosine: float,
                   min_share: float) -> tuple[ndarray, float] | None:
    """Return the unit normal and the offset of the plane of the largest area with little below it, or None."""
    if thickness == 0:
        return None
    thin = points[Cells(points, thickness).first]
    found = fit_plane(thin, axis, thickness, min_cosine)
    if found is None:
        return None
    heights = thin @ found[0] - found[1]
    low, high = float((heights < -thickness).mean()), float((heights > thickness).mean())
    return None if 1 - low - high < min_share or low > MAX_BELOW * (low + high) else found
