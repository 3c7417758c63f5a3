"""Occupied cells of a grid, and which of them are neighbours."""
from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy import ndarray

from clipgs_plugin.datasets.transforms.floaters import MAX_CELL


class Cells:
    """Cells of equal sides that hold points.

    Points beyond half a million cells from the origin share the outermost cells. ``cell`` (N,) is the cell of each
    point, ``counts`` (C,) the number of points of each cell and ``first`` (C,) the first of them.

    Args:
        points: Positions, (N, 3) float64.
        side: Side of the cells, above 0.
    """

    def __init__(self, points: ndarray, side: float) -> None:
        if not side > 0:
            raise ValueError(f'side={side}: expected a length above 0')
        half = MAX_CELL // 2
        index = np.clip(np.floor(points / side), 1 - half, half - 2).astype(np.int64) + half
        self._keys, self.first, cell, self.counts = np.unique(index @ _FACTORS, return_index=True, return_inverse=True,
                                                              return_counts=True)
        self.cell = cell.reshape(-1)

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def neighbours(self) -> tuple[ndarray, ndarray]:
        """Pairs of cells that share a face, an edge or a corner, each once, (P,) and (P,)."""
        first, second = [], []
        for step in _STEPS:
            place = np.minimum(np.searchsorted(self._keys, self._keys + step), len(self._keys) - 1)
            found = np.flatnonzero(self._keys[place] == self._keys + step)
            first.append(found)
            second.append(place[found])
        return np.concatenate(first), np.concatenate(second)

    def mean(self, values: ndarray) -> ndarray:
        """Average values of the points, (N, D), in each cell, (C, D)."""
        sums = [np.bincount(self.cell, weights=column, minlength=len(self)) for column in values.T]
        return np.stack(sums, axis=1) / self.counts[:, None]


_FACTORS = np.array([MAX_CELL ** 2, MAX_CELL, 1], dtype=np.int64)
_AROUND = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3) @ _FACTORS
_STEPS = np.sort(_AROUND[_AROUND > 0])
