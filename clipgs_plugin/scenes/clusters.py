"""Objects by clusters in space and colour."""
from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.cells import Cells
from clipgs_plugin.scenes.floor import find_floor
from clipgs_plugin.scenes.objects import MIN_GAUSSIANS, NONE
from clipgs_plugin.structures import GaussianCloud

_SAMPLE = 20_000   # Gaussians whose neighbours tell the spacing
_NEIGHBOURS = 8    # whose distance is the spacing
_QUANTILE = 0.9    # of the Gaussians that the spacing holds for


def split_by_clusters(
    cloud: GaussianCloud,
    up: str = 'y',
    floor: bool = True,
    min_opacity: float = 0.1,
    cell: float = 1.0,
    min_neighbours: int = 3,
    color: float = 0.0,
    min_gaussians: int = MIN_GAUSSIANS,
) -> Tensor:
    """Divide a scene into connected groups of Gaussians off the floor.

    Space is divided into cells with a side of ``cell`` spacings. The spacing is the distance to the eighth neighbour
    that 90 % of the opaque Gaussians have. Neighbouring cells of at least ``min_neighbours`` opaque Gaussians each are
    connected, so that faint or few floaters do not bridge objects. The other Gaussians off the floor join the largest
    group beside their cell.

    Args:
        cloud: Scene in any unit.
        up: Up axis, to find the floor.
        floor: Removal of the floor; without it the up axis has no effect.
        min_opacity: Least opacity of a Gaussian that connects.
        cell: Side of the cells, in spacings.
        min_neighbours: Least number of opaque Gaussians of a cell that connects.
        color: Largest difference of the mean colours of connected cells, Euclidean in sRGB of [0, 1]; 0 connects cells
            of all colours.
        min_gaussians: Least number of Gaussians of a group.

    Returns:
        Id of the group of each Gaussian, (N,) int64, 1 for the largest; -1 for none.

    Raises:
        ValueError: An option is out of range.
    """
    if not (0 <= min_opacity < 1 and cell > 0 and color >= 0 and min_neighbours >= 1 and min_gaussians >= 1):
        raise ValueError(f'min_opacity={min_opacity}, cell={cell}, color={color}, min_neighbours={min_neighbours}, '
                         f'min_gaussians={min_gaussians}: expected an opacity below 1, and positive numbers')
    labels = np.full(len(cloud), NONE, np.int64)
    off = ~find_floor(cloud, up).numpy() if floor else np.ones(len(cloud), bool)
    opaque = (cloud.opacities > min_opacity).numpy()
    points = cloud.means.double().numpy()
    space = spacing(points[off & opaque])
    if space > 0:
        grid = Cells(points[off], cell * space)
        dense = np.bincount(grid.cell[opaque[off]], minlength=len(grid)) >= min_neighbours
        colors = grid.mean(cloud.rgb.numpy()[off]) if color else None
        labels[off] = grown(grid, groups(grid, dense, color, colors))[grid.cell]
    return torch.from_numpy(ranked(labels, min_gaussians))


def spacing(points: ndarray) -> float:
    """Return the distance to the eighth neighbour that 90 % of points (N, 3) have; 0 for less than two points."""
    from scipy.spatial import cKDTree
    if len(points) < 2:
        return 0.0
    sample = points[np.random.default_rng(0).permutation(len(points))[:_SAMPLE]]
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(sample, [min(_NEIGHBOURS, len(points) - 1) + 1])
    return float(np.quantile(distances, _QUANTILE))


def groups(
    grid: Cells,
    dense: ndarray,          # (C,) bool
    color: float = 0.0,
    colors: ndarray | None = None,  # (C, 3)
) -> ndarray:                # (C,) int64
    """Number the connected groups of dense cells; -1 for the other cells."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    first, second = grid.neighbours
    linked = dense[first] & dense[second]
    if color:
        linked &= ((colors[first] - colors[second]) ** 2).sum(1) <= color ** 2
    first, second = first[linked], second[linked]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(grid), len(grid)))
    return np.where(dense, connected_components(graph, directed=False)[1], NONE).astype(np.int64)


def grown(grid: Cells, group: ndarray) -> ndarray:
    """Give each cell without a group (C,) the largest group of its neighbours, if there is one."""
    first, second = grid.neighbours
    first, second = np.concatenate([first, second]), np.concatenate([second, first])
    beside = (group[first] == NONE) & (group[second] != NONE)
    first, second = first[beside], group[second[beside]]
    inside = group != NONE
    size = np.bincount(group[inside], weights=grid.counts[inside], minlength=1)
    order = np.lexsort((second, size[second]))  # the last one written is of the largest
    result = group.copy()
    result[first[order]] = second[order]
    return result


def ranked(labels: ndarray, min_gaussians: int) -> ndarray:
    """Number the groups of labels (N,) from 1, the largest first; small groups get -1."""
    ids, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    counts = np.where((ids == NONE) | (counts < min_gaussians), 0, counts)
    order = np.argsort(-counts, kind='stable')
    number = np.full(len(ids), NONE, np.int64)
    kept = order[counts[order] > 0]
    number[kept] = np.arange(1, len(kept) + 1)
    return number[place.reshape(-1)]
