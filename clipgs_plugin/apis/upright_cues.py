"""Cues of the geometry for the up axis of an object."""
from __future__ import annotations

import math

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.ops.rotations import AXES, axis_vector
from clipgs_plugin.structures import GaussianCloud

CUES = ('support', 'stability', 'height', 'symmetry', 'low_mass', 'base', 'detail', 'taper')
POINTS = 4096         # Gaussians that are looked at
SLAB = 0.03           # thickness of the lowest and highest slab, in heights of the object
TRIMMED = 0.002       # share of Gaussians beyond either end of the height
PLANES = 8            # reflection planes tried through an axis
VISIBLE = 0.1         # minimum opacity
UP, RIGHT, AHEAD = (np.stack([axis_vector(name).numpy() for name in axes]) for axes in (
    AXES, ('y', 'z', 'x', 'y', 'z', 'x'), ('z', 'x', 'y', 'z', 'x', 'y')))


def up_cues(cloud: GaussianCloud, seed: int = 0) -> ndarray:
    """Measure how well each axis serves as the up axis of an object.

    Args:
        cloud: Object in any frame and of any size.
        seed: Seed of the sample of Gaussians.

    Returns:
        Cues, (6, 8) float64, with one row for each of ``ops.rotations.AXES`` and one column for each of ``CUES``:

        - ``support``: area of the lowest slab over that of the footprint.
        - ``stability``: angle by which the object tilts before it falls, in radians.
        - ``height``: logarithm of the height over the mean of the three extents.
        - ``symmetry``: distance of the points to their mirror images, for the best vertical plane, in radii; negative.
        - ``low_mass``: height of the centre below the middle, in heights.
        - ``base``: share of the Gaussians in the lowest slab minus that in the highest.
        - ``detail``: standard deviation of the colours at the top minus that at the bottom.
        - ``taper``: logarithm of the width of the lower half over that of the upper half.
    """
    points, colors = sample(cloud, seed)
    symmetries = [_symmetry(points, axis) for axis in range(3)]
    rows = []
    for i in range(len(AXES)):
        placed = np.stack([points @ RIGHT[i], points @ AHEAD[i], points @ UP[i]], 1)
        rows.append([*_standing(placed), symmetries[i % 3], *_asymmetry(placed, colors)])
    return np.array(rows)


def sample(cloud: GaussianCloud, seed: int) -> tuple[ndarray, ndarray]:
    """Return positions in the unit sphere and colours of some visible Gaussians, (n, 3) each."""
    visible = cloud[cloud.opacities >= VISIBLE]
    visible = visible if len(visible) else cloud
    chosen = np.sort(np.random.default_rng(seed).permutation(len(visible))[:POINTS])
    visible = visible[torch.from_numpy(chosen)]
    points = visible.means.double().numpy()
    points = points - (np.quantile(points, TRIMMED, 0) + np.quantile(points, 1 - TRIMMED, 0)) / 2
    radius = np.quantile(np.linalg.norm(points, axis=1), 1 - TRIMMED)
    return points / (radius or 1.0), visible.rgb.double().numpy()


def hull_of(points: ndarray) -> tuple[float, ndarray]:
    """Return the area and the counter-clockwise corners of the hull of points (n, 2); nothing if they lie on a line."""
    from scipy.spatial import ConvexHull, QhullError
    if len(points) < 3:
        return 0.0, points[:0]
    try:
        hull = ConvexHull(points)
    except QhullError:  # all on a line
        return 0.0, points[:0]
    return hull.volume, points[hull.vertices]


def _standing(placed: ndarray) -> list[float]:
    """Return support, stability and height of points (n, 3) whose third coordinate is the height."""
    height = placed[:, 2]
    low, high = np.quantile(height, [TRIMMED, 1 - TRIMMED])
    span = max(high - low, 1e-6)
    area, corners = hull_of(placed[height <= low + SLAB * span, :2])
    footprint, _ = hull_of(placed[:, :2])
    centre = placed.mean(0)
    extents = np.quantile(placed, 1 - TRIMMED, 0) - np.quantile(placed, TRIMMED, 0)
    angle = 0.0
    if area > 0:
        edges = np.roll(corners, -1, 0) - corners
        toward = centre[:2] - corners
        inside = (edges[:, 0] * toward[:, 1] - edges[:, 1] * toward[:, 0]) / np.linalg.norm(edges, axis=1)
        angle = math.atan2(inside.min(), max(centre[2] - low, 1e-6))
    return [area / max(footprint, 1e-6), angle, math.log(span / max(extents.mean(), 1e-6))]


def _symmetry(points: ndarray, axis: int) -> float:
    """Return the mean distance of points to their mirror images at the best plane through an axis, negative."""
    from scipy.spatial import cKDTree
    tree, some = cKDTree(points), points[::max(1, len(points) // 512)]
    found = []
    for angle in np.arange(PLANES) * math.pi / PLANES:
        normal = math.cos(angle) * RIGHT[axis] + math.sin(angle) * AHEAD[axis]
        images = some - 2 * (some @ normal)[:, None] * normal
        found.append(tree.query(images)[0].mean())
    return -min(found)


def _asymmetry(placed: ndarray, colors: ndarray) -> list[float]:
    """Return low mass, base, detail and taper, which change their sign when the object is turned over."""
    height = placed[:, 2]
    low, high = np.quantile(height, [TRIMMED, 1 - TRIMMED])
    span = max(high - low, 1e-6)
    bottom, top = height <= low + SLAB * span, height >= high - SLAB * span
    lower = height < (low + high) / 2
    widths = [np.sqrt(placed[half, :2].var(0).sum()) if half.any() else 1e-3 for half in (lower, ~lower)]
    variations = [colors[end].std(0).mean() if end.any() else 0.0 for end in (bottom, top)]
    return [0.5 - (height.mean() - low) / span, float(bottom.mean() - top.mean()),
            variations[1] - variations[0], math.log(max(widths[0], 1e-3) / max(widths[1], 1e-3))]
