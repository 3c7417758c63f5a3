"""Objects by clusters in space and colour."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.cells import Cells
from clipgs_plugin.scenes.embedding import Track, silent
from clipgs_plugin.scenes.objects import MIN_GAUSSIANS, NONE
from clipgs_plugin.scenes.walls import find_room
from clipgs_plugin.structures import GaussianCloud

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

LEVELS = 2        # of cells, each with twice the side of the one before
_SAMPLE = 20_000  # Gaussians whose neighbours tell the spacing of a scene
_MEMBERS = 100    # likewise of a group
_NEIGHBOURS = 8   # whose distance is the spacing
_QUANTILE = 0.9   # of the Gaussians of a scene that its spacing holds for


@dataclass(frozen=True)
class ClusterRule:
    """Conditions on the clusters of a scene; see :func:`split_by_clusters`."""

    min_opacity: float = 0.1
    cell: float = 1.1
    min_neighbours: int = 3
    color: float = 0.0
    min_gaussians: int = MIN_GAUSSIANS

    def __post_init__(self) -> None:
        if not (0 <= self.min_opacity < 1 and self.cell > 0 and self.color >= 0 and self.min_neighbours >= 1
                and self.min_gaussians >= 1):
            raise ValueError(f'{self}: expected an opacity below 1, a colour difference of 0 or more, and positive '
                             'numbers')


def split_by_clusters(
    cloud: GaussianCloud,
    up: str = 'y',
    room: bool = True,
    min_opacity: float = 0.1,
    cell: float = 1.1,
    min_neighbours: int = 3,
    color: float = 0.0,
    min_gaussians: int = MIN_GAUSSIANS,
    track: Track = silent,
) -> Tensor:
    """Divide a scene into connected groups of Gaussians off floor and walls.

    Space is divided into cells with a side of ``cell`` spacings. The spacing is the distance to the eighth neighbour
    that 90 % of the opaque Gaussians have. Neighbouring cells of at least ``min_neighbours`` opaque Gaussians each are
    connected, so that faint or few floaters do not bridge objects. A group whose median spacing is larger than the
    cells is floaters, or a fragment of an object of fewer Gaussians: it waits for cells of twice the side.
    These connect what is left and add it to the group that it touches most, but never connect two groups. The other
    Gaussians join the largest group beside their cell.

    Args:
        cloud: Scene in any unit.
        up: Up axis, to find the floor.
        room: Removal of floor and walls; without it the up axis has no effect.
        min_opacity: Least opacity of a Gaussian that connects.
        cell: Side of the cells, in spacings.
        min_neighbours: Least number of opaque Gaussians of a cell that connects.
        color: Largest difference of the mean colours of connected cells, Euclidean in sRGB of [0, 1]; 0 connects cells
            of all colours.
        min_gaussians: Least number of Gaussians of a group.
        track: Function that shows the progress.

    Returns:
        Id of the group of each Gaussian, (N,) int64, 1 for the largest; -1 for none.

    Raises:
        ValueError: An option is out of range.
    """
    from scipy.spatial import cKDTree
    rule = ClusterRule(min_opacity, cell, min_neighbours, color, min_gaussians)
    labels, steps = np.full(len(cloud), NONE, np.int64), iter(track(range(2 + LEVELS), 'clusters'))
    next(steps)
    off = ~find_room(cloud, up).numpy() if room else np.ones(len(cloud), bool)
    next(steps)
    opaque = (cloud.opacities > min_opacity).numpy()[off]
    points, colors = cloud.means.double().numpy()[off], cloud.rgb.numpy()[off]
    if opaque.sum() > 1:
        tree = cKDTree(points[opaque], balanced_tree=False, compact_nodes=False)
        side = cell * float(np.quantile(spacings(tree, points[opaque], _SAMPLE), _QUANTILE))
        found = np.full(len(points), NONE, np.int64)
        for level, _ in enumerate(steps if side > 0 else ()):
            found = add_groups(found, points, colors, opaque, tree, side * 2 ** level, rule)
        labels[off] = found
    return torch.from_numpy(ranked(labels, min_gaussians))


def spacings(tree: cKDTree, points: ndarray, count: int) -> ndarray:
    """Return the distances of up to ``count`` points, drawn from (N, 3), to their eighth neighbours in a tree."""
    drawn = points[np.random.default_rng(0).permutation(len(points))[:count]]
    return tree.query(drawn, [min(_NEIGHBOURS + 1, tree.n)])[0][:, 0]


def add_groups(
    labels: ndarray,   # (N,) int64, -1 for none
    points: ndarray,   # (N, 3) float64
    colors: ndarray,   # (N, 3)
    opaque: ndarray,   # (N,) bool
    tree: cKDTree,     # of the opaque points
    side: float,       # of the cells
    rule: ClusterRule,
) -> ndarray:          # (N,) int64
    """Add the groups that cells of one size connect to the groups that are there."""
    grid, free = Cells(points, side), labels == NONE
    dense = np.bincount(grid.cell[opaque & free], minlength=len(grid)) >= rule.min_neighbours
    group = connected(grid, dense, grid.mean(colors) if rule.color else None, rule.color)
    there = np.full(len(grid), NONE, np.int64)
    there[grid.cell[~free]] = labels[~free]
    beside = touched(grid, group, there)
    member = np.where(free, group[grid.cell], NONE)
    counts = np.bincount(member[member != NONE], minlength=len(beside))
    order = np.argsort(member, kind='stable')
    starts = np.searchsorted(member[order], np.arange(len(beside)))
    least = np.where(beside == NONE, rule.min_gaussians, rule.min_gaussians / 4)
    numbers, following = np.full(len(beside) + 1, NONE, np.int64), labels.max(initial=NONE) + 1  # -1 is the last
    for number in np.flatnonzero(counts >= least):
        members = order[starts[number]:starts[number] + counts[number]]
        if np.median(spacings(tree, points[members[opaque[members]]], _MEMBERS)) <= side:
            numbers[number] = following if beside[number] == NONE else beside[number]
            following += 1
    added = numbers[group]  # (C,)
    joins = free & ((group == NONE) | (added != NONE))[grid.cell]
    result = labels.copy()
    result[joins] = grown(grid, added)[grid.cell[joins]]
    return result


def connected(
    grid: Cells,
    dense: ndarray,                 # (C,) bool
    colors: ndarray | None = None,  # (C, 3)
    limit: float = 0.0,             # of the difference of colours
) -> ndarray:                       # (C,) int64
    """Number the connected groups of dense cells from 0; -1 for the other cells."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    first, second = grid.neighbours
    linked = dense[first] & dense[second]
    if colors is not None:
        linked &= ((colors[first] - colors[second]) ** 2).sum(1) <= limit ** 2
    first, second = first[linked], second[linked]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(grid), len(grid)))
    group = np.full(len(grid), NONE, np.int64)
    if dense.any():
        group[dense] = np.unique(connected_components(graph, directed=False)[1][dense], return_inverse=True)[1]
    return group


def touched(grid: Cells, group: ndarray, there: ndarray) -> ndarray:
    """Return which of the groups there, by cells (C,), shares most cells or faces with each new group, or -1."""
    first, second = grid.neighbours
    everyone = np.arange(len(grid))
    first, second = np.concatenate([first, second, everyone]), np.concatenate([second, first, everyone])
    beside = (group[first] != NONE) & (there[second] != NONE)
    numbers = np.full(group.max(initial=NONE) + 1, NONE, np.int64)
    pairs, counts = np.unique(np.stack([group[first[beside]], there[second[beside]]]), axis=1, return_counts=True)
    order = np.argsort(counts, kind='stable')  # the last one written shares most
    numbers[pairs[0, order]] = pairs[1, order]
    return numbers


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
