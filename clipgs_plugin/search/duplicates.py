"""Groups of near-duplicates in an index."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from clipgs_plugin.search.approximate import Tables
from clipgs_plugin.search.partition import Partition
from clipgs_plugin.search.vectors import STEP, Vectors

_ROUNDING = 1e-6  # of a cosine


def duplicate_groups(vectors: Vectors, threshold: float, tables: Tables | None = None,
                     progress: Callable[[int, int], None] = lambda done, total: None) -> list[list[int]]:
    """Return groups of rows, ascending, that chains of cosines of at least ``threshold`` connect, largest first.

    Args:
        vectors: Rows.
        threshold: Least cosine of a pair, above 0 and at most 1.
        tables: Axes and centres of the codes, by which rows that are too far apart are not compared; the groups are
            the same.
        progress: Function of the rows that are done and all rows.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f'threshold {threshold}: expected a cosine above 0, at most 1')
    groups = _Groups(vectors, threshold)
    if tables is None:
        _offer_all(vectors, threshold, groups, progress)
    else:
        _offer_near(vectors, threshold, groups, tables, progress)
    groups.settle()
    order = np.argsort(groups.labels, kind='stable')
    found = np.split(order, np.flatnonzero(np.diff(groups.labels[order])) + 1)
    return sorted((group.tolist() for group in found if len(group) > 1), key=lambda group: (-len(group), group))


def _offer_all(vectors: Vectors, threshold: float, groups: _Groups, progress: Callable[[int, int], None]) -> None:
    """Offer all pairs of rows whose cosine may reach the threshold."""
    for rows, _ in vectors.steps():
        block = vectors.take(rows)  # unit to the last digit, so that a copy of a row reaches 1
        for others, _ in vectors.steps(np.arange(rows[0], len(vectors))):
            compared = vectors.take(others)
            for start in range(0, len(block), STEP // 8):
                i, j = (block[start:start + STEP // 8] @ compared.T >= threshold - 2 * _ROUNDING).nonzero(as_tuple=True)
                groups.offer(rows[start + i.numpy()], others[j.numpy()])
        progress(int(rows[-1]) + 1, len(vectors))


def _offer_near(vectors: Vectors, threshold: float, groups: _Groups, tables: Tables,
                progress: Callable[[int, int], None]) -> None:
    """Offer the pairs of rows that are near to each other along the principal axes, which shorten distances."""
    reach, done = (2 - 2 * (threshold - _ROUNDING)) ** 0.5, 0
    partition = Partition(vectors, tables)
    for own, others in partition.near(reach):
        for first, second in partition.within(own, others, reach):
            groups.offer(first.numpy(), second.numpy())
        done += len(own)
        progress(done, len(vectors))


class _Groups:
    """Groups of rows, which grow as pairs are offered.

    Pairs within a group are dropped, and many pairs are compared in random order, so that a few of them join a large
    group and the others are dropped.

    Args:
        vectors: Rows.
        threshold: Least cosine of a pair.
    """

    def __init__(self, vectors: Vectors, threshold: float) -> None:
        self.labels = np.arange(len(vectors))  # the least row of the group of each row
        self._vectors, self._threshold = vectors, threshold
        self._waiting: list[np.ndarray] = []
        self._rng = np.random.default_rng(0)

    def offer(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take pairs of rows (p,) and (p,) that may be near-duplicates."""
        self._waiting.append(self._apart(np.stack([first, second])))
        if sum(pairs.shape[1] for pairs in self._waiting) >= STEP:
            self.settle()

    def settle(self) -> None:
        """Join the groups of the pairs that are near-duplicates."""
        waiting = np.concatenate([np.empty((2, 0), np.int64), *self._waiting], 1)
        self._waiting = []
        if waiting.shape[1] > STEP:
            waiting = waiting[:, self._rng.permutation(waiting.shape[1])]
        while waiting.shape[1]:
            some, waiting = waiting[:, :STEP], waiting[:, STEP:]
            cosines: Tensor = (self._vectors.take(some[0]) * self._vectors.take(some[1])).sum(1)
            near = some[:, (cosines >= self._threshold - _ROUNDING).numpy()]
            if near.shape[1]:
                self._join(near)
                waiting = self._apart(waiting)

    def _apart(self, pairs: np.ndarray) -> np.ndarray:
        """Return the pairs (2, p) of rows of different groups."""
        return pairs[:, self.labels[pairs[0]] != self.labels[pairs[1]]]

    def _join(self, pairs: np.ndarray) -> None:
        """Join the groups of pairs (2, p)."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        names, ends = np.unique(self.labels[pairs], return_inverse=True)
        graph = coo_matrix((np.ones(pairs.shape[1], bool), ends.reshape(2, -1)), shape=(len(names),) * 2)
        _, joined = connected_components(graph, directed=False)
        least = names[np.unique(joined, return_index=True)[1]]  # names ascend
        renamed = np.arange(len(self.labels))
        renamed[names] = least[joined]
        self.labels = renamed[self.labels]
