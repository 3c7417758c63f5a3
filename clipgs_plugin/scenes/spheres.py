"""Objects by sliding spheres: balls of several radii at many places, of which those that stand alone win."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.cells import Cells
from clipgs_plugin.scenes.floor import extent_of
from clipgs_plugin.scenes.objects import MIN_GAUSSIANS, NONE
from clipgs_plugin.scenes.walls import find_room
from clipgs_plugin.structures import GaussianCloud

SHELL = 1.25      # radius of the surroundings of a sphere, in its radii
_SAMPLE = 20_000  # Gaussians that tell how alone a sphere stands
_STEPS = 2        # towards the mean of the Gaussians in a sphere
_LEVEL = 0.05     # difference of values that counts

Score = Callable[[Sequence[Tensor]], Tensor]


def split_by_spheres(
    cloud: GaussianCloud,
    up: str = 'y',
    room: bool = True,
    radii: Sequence[float] = (0.1, 0.15, 0.22, 0.33),
    stride: float = 0.75,
    max_overlap: float = 0.25,
    min_alone: float = 0.6,
    min_opacity: float = 0.1,
    min_gaussians: int = MIN_GAUSSIANS,
    max_spheres: int = 300,
    score: Score | None = None,
) -> Tensor:
    """Choose spheres over the Gaussians off floor and walls, without a sphere taking much of another.

    Spheres start at the cells of a grid and move to the mean of what they hold. The value of a sphere is its share of
    the opaque Gaussians within 1.25 radii, times its score if there is a function of scores. Spheres are taken by
    value, and of equal ones the smaller first, unless those before hold more than ``max_overlap`` of it. This is for
    compact objects that touch, where clusters join them; a sphere cuts long objects and takes some of their neighbours.

    Args:
        cloud: Scene in any unit.
        up: Up axis, to find the floor.
        room: Removal of floor and walls; without it the up axis has no effect.
        radii: Radii of the spheres, in extents (the radius around the median that holds 90 % of the Gaussians).
        stride: Side of the grid, in radii.
        max_overlap: Largest share of a sphere's Gaussians that spheres of larger value hold.
        min_alone: Least share of the Gaussians within 1.25 radii.
        min_opacity: Least opacity of a Gaussian that counts.
        min_gaussians: Least number of Gaussians in a sphere.
        max_spheres: Largest number of scored spheres, those that stand most alone.
        score: Function from the indices of the Gaussians in each of S spheres, of (n,), to a positive score of each,
            (S,), such as the cosine of its embedding to the best of some texts.

    Returns:
        Id of the sphere of each Gaussian, (N,) int64, 1 for the one of largest value; -1 for none.

    Raises:
        ValueError: An option is out of range.
    """
    if not (radii and min(radii) > 0 and stride > 0 and 0 <= max_overlap < 1 and 0 <= min_alone <= 1
            and 0 <= min_opacity < 1 and min_gaussians >= 1 and max_spheres >= 1):
        raise ValueError(f'radii={tuple(radii)}, stride={stride}, max_overlap={max_overlap}, min_alone={min_alone}, '
                         f'min_opacity={min_opacity}, min_gaussians={min_gaussians}, max_spheres={max_spheres}: '
                         'expected positive numbers, and shares of at most 1')
    off = ~find_room(cloud, up).numpy() if room else np.ones(len(cloud), bool)
    points, labels = cloud.means.double().numpy(), torch.full((len(cloud),), NONE)
    seen = points[off & (cloud.opacities > min_opacity).numpy()]
    extent = extent_of(seen) if len(seen) > 1 else 0.0
    if extent == 0:
        return labels
    centers, sizes, alone = place_spheres(seen, [radius * extent for radius in radii], stride, min_gaussians)
    best = np.lexsort((sizes, -alone))
    best = best[alone[best] >= min_alone][:max_spheres]
    centers, sizes, value = centers[best], sizes[best], alone[best]
    where = torch.from_numpy(np.flatnonzero(off))
    members = [where[inside] for inside in spheres_of(points[off], centers, sizes)]
    if score is not None and members:
        value = value * score(members).double().numpy()
    return choose(members, np.lexsort((sizes, -np.round(value / _LEVEL))), labels, max_overlap, min_gaussians)


def choose(
    members: Sequence[Tensor],  # S of (n,) int64
    order: ndarray,             # (S,) int, the best first
    labels: Tensor,             # (N,) int64, -1
    max_overlap: float,
    min_gaussians: int,
) -> Tensor:                    # (N,) int64
    """Number the spheres from 1 that little is taken of by those before; they keep what is left."""
    labels, number = labels.clone(), 0
    for place in order:
        inside = members[place]
        fresh = inside[labels[inside] == NONE]
        if len(fresh) >= max(min_gaussians, (1 - max_overlap) * len(inside)):
            number += 1
            labels[fresh] = number
    return labels


def place_spheres(
    points: ndarray,       # (N, 3) float64
    radii: Sequence[float],
    stride: float,         # of the grid, in radii
    min_points: int,
) -> tuple[ndarray, ndarray, ndarray]:
    """Return centres (S, 3), radii (S,) and shares of the surroundings (S,) of spheres of at least ``min_points``."""
    from scipy.spatial import cKDTree
    sample = points[np.random.default_rng(0).permutation(len(points))[:_SAMPLE]]
    tree, least = cKDTree(sample), max(2, round(min_points * len(sample) / len(points)))
    centers, sizes = [], []
    for radius in radii:
        grid = Cells(sample, stride * radius)
        places = grid.mean(sample)
        for _ in range(_STEPS):
            places = np.stack([sample[inside].mean(0) if inside else place
                               for place, inside in zip(places, tree.query_ball_point(places, radius))])
        places = places[Cells(places, stride * radius / 2).first]  # many have moved to the same place
        centers.append(places)
        sizes.append(np.full(len(places), radius))
    center, size = np.concatenate(centers), np.concatenate(sizes)
    inside = tree.query_ball_point(center, size, return_length=True)
    around = tree.query_ball_point(center, SHELL * size, return_length=True)
    kept = inside >= least
    return center[kept], size[kept], inside[kept] / around[kept]


def spheres_of(points: ndarray, centers: ndarray, radii: ndarray) -> list[ndarray]:
    """Return the indices of the points in each sphere, ascending."""
    from scipy.spatial import cKDTree
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    return [np.sort(np.array(inside, dtype=np.int64)) for inside in tree.query_ball_point(centers, radii)]
