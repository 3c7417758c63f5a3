"""Measures of one splat object, each computed once and only if a check asks for it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipgs_plugin.datasets.transforms.floaters import EXTENT_QUANTILE, DropFloaters, isolated
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.structures.gaussian_cloud import SH_C0

VISIBLE = 0.05          # opacity that FilterOpacity keeps
FLOATERS = DropFloaters()
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
CELLS = 24              # grid cells along the extent, for separate parts
OPAQUE = 0.99           # opacity
NEEDLE = 10             # longest over middle axis
LEAF = 0.05             # shortest over middle axis
HASH = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing
PLANE_TRIALS = 300      # random planes through three points
PLANE_POINTS = 4000     # Gaussians on which planes are tried
PLANE_HALF = 0.02       # half the thickness of a plane, in extents


@dataclass(frozen=True, eq=False)
class Plane:
    """Plane that holds many Gaussians."""

    share: float        # of the visible Gaussians within PLANE_HALF extents of it
    one_sided: float    # share of the others on the larger side
    overhang: float     # radius of the plane's Gaussians over that of the others, both across the normal
    normal: np.ndarray  # (3,) unit, towards the others


@dataclass(eq=False)
class Subject:
    """Object under examination, with valid values.

    Lengths are in extents: the distance from the median position within which 90 % of the visible Gaussians lie, as in
    :class:`~clipgs_plugin.datasets.transforms.DropFloaters`.
    """

    cloud: GaussianCloud

    @cached_property
    def opacities(self) -> np.ndarray:
        """Opacities, (N,) float64."""
        return self.cloud.opacity_logits.double().sigmoid().numpy()

    @property
    def transparent(self) -> float:
        """Share of nearly invisible Gaussians."""
        return float((self.opacities < VISIBLE).mean())

    @property
    def opaque(self) -> float:
        """Share of opaque Gaussians."""
        return float((self.opacities > OPAQUE).mean())

    @cached_property
    def visible(self) -> GaussianCloud:
        """Gaussians that FilterOpacity keeps, or all if it keeps none."""
        keep = self.cloud.opacities >= VISIBLE
        return self.cloud[keep] if bool(keep.any()) else self.cloud

    @cached_property
    def offsets(self) -> np.ndarray:
        """Positions of the visible Gaussians relative to their median, (V, 3) float64."""
        means = self.visible.means.double().numpy()
        return means - np.median(means, axis=0)

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances of the visible Gaussians to their median position, (V,), file units."""
        return np.linalg.norm(self.offsets, axis=1)

    @cached_property
    def extent(self) -> float:
        """Distance within which 90 % of the visible Gaussians lie, file units; 1 if they coincide."""
        return float(np.quantile(self.distances, EXTENT_QUANTILE)) or 1.0

    @cached_property
    def sizes(self) -> np.ndarray:
        """Standard deviations of the visible Gaussians, ascending, (V, 3), extents."""
        return np.sort(self.visible.log_scales.double().exp().numpy(), axis=1) / self.extent

    @property
    def needles(self) -> float:
        """Share of the visible Gaussians whose longest axis is over ``NEEDLE`` times the middle one."""
        return float((self.sizes[:, 2] > NEEDLE * self.sizes[:, 1]).mean())

    @property
    def leaves(self) -> float:
        """Share of the visible Gaussians whose shortest axis is below ``LEAF`` of the middle one."""
        return float((self.sizes[:, 0] < LEAF * self.sizes[:, 1]).mean())

    @cached_property
    def huge(self) -> np.ndarray:
        """Mask of Gaussians that DropFloaters calls too large, (V,) bool."""
        return self.sizes[:, 2] > FLOATERS.size

    @cached_property
    def isolated(self) -> np.ndarray:
        """Mask of Gaussians that DropFloaters calls isolated, (V,) bool."""
        neighbours = min(FLOATERS.neighbours, len(self.visible) - 1)
        return isolated(self.offsets, FLOATERS.isolation * self.extent, neighbours)

    @cached_property
    def core(self) -> np.ndarray:
        """Offsets of the visible Gaussians that are neither huge nor isolated, (C, 3); all if none is left."""
        keep = ~(self.huge | self.isolated)
        return self.offsets[keep] if keep.any() else self.offsets

    @cached_property
    def colors(self) -> np.ndarray:
        """View-independent sRGB colours before they are clamped, (N, 3) float64."""
        return 0.5 + SH_C0 * self.cloud.sh[:, 0].double().numpy()

    @cached_property
    def copies(self) -> int:
        """Number of Gaussians that equal an earlier one in every value, by a hash of 64 bits of each."""
        keys = _hashes(self.cloud.means.numpy())
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = self.cloud[np.flatnonzero(counts[inverse] > 1)]  # few, unless the file is merged with itself
        rows = [value[:, None].flatten(1).numpy() for _, value in shared.fields()]
        keys = _hashes(np.concatenate(rows, axis=1))
        return len(keys) - len(np.unique(keys))

    @cached_property
    def parts(self) -> np.ndarray:
        """Shares of the separate parts of the visible object, descending, (P,).

        Two Gaussians belong together if a chain of neighbouring cells of a grid connects them. Cells are a
        ``CELLS``-th of the extent, and larger for sparse objects.
        """
        from scipy import ndimage
        from scipy.spatial import cKDTree
        points = self.core
        if len(points) < 2:
            return np.ones(1)
        sample = points[:: max(1, len(points) // 2000)]
        nearest = cKDTree(points).query(sample, [3])[0] if len(points) > 2 else np.zeros(1)
        cell = max(self.extent / CELLS, 1.5 * float(np.quantile(nearest, 0.95)))
        index = np.floor((points - points.min(0)) / cell).astype(np.int64)
        index = np.minimum(index, 255)
        grid = np.zeros(index.max(0) + 1, bool)
        grid[tuple(index.T)] = True
        labels, _ = ndimage.label(grid, np.ones((3, 3, 3)))
        counts = np.bincount(labels[tuple(index.T)])[1:]
        return np.sort(counts)[::-1] / len(points)

    @cached_property
    def plane(self) -> Plane | None:
        """Plane through most Gaussians, found by random sampling with a fixed seed; None for fewer than 50."""
        rng, points = np.random.default_rng(0), self.core
        if len(points) < 50:
            return None
        points = points[rng.permutation(len(points))[:PLANE_POINTS]] / self.extent
        corners = points[rng.integers(len(points), size=(PLANE_TRIALS, 3))]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1)
        usable = lengths > 1e-6
        if not usable.any():
            return None
        normals, origins = normals[usable] / lengths[usable, None], corners[usable, 0]
        heights = points @ normals.T - (origins * normals).sum(1)
        best = int((np.abs(heights) < PLANE_HALF).sum(0).argmax())
        inside = np.abs(heights[:, best]) < PLANE_HALF
        centre = points[inside].mean(0)
        normal = np.linalg.svd(points[inside] - centre, full_matrices=False)[2][2]
        height = (points - centre) @ normal
        inside, others = np.abs(height) < PLANE_HALF, np.abs(height) >= PLANE_HALF
        if not others.any():
            return Plane(1.0, 1.0, 1.0, normal)
        above = float((height[others] > 0).mean())
        normal = normal if above >= 0.5 else -normal
        across = points - centre - ((points - centre) @ normal)[:, None] * normal
        radius = [float(np.quantile(np.linalg.norm(across[mask] - across[mask].mean(0), axis=1), 0.9))
                  for mask in (inside, others)]
        return Plane(float(inside.mean()), max(above, 1 - above), radius[0] / max(radius[1], 1e-6), normal)


def _hashes(rows: np.ndarray) -> np.ndarray:
    """Return a hash of 64 bits of each row of floats, (N, C), as (N,) uint64."""
    keys = np.zeros(len(rows), np.uint64)
    for column in rows.T.astype(np.float64):
        keys = (keys ^ column.view(np.uint64)) * HASH
        keys ^= keys >> np.uint64(29)
    return keys


def nearest_axis(vector: np.ndarray) -> str:
    """Return the signed axis nearest to a vector (3,), such as ``'-y'``."""
    largest = int(np.abs(vector).argmax())
    return ('-' if vector[largest] < 0 else '') + 'xyz'[largest]
