"""Groups of near-duplicates in an index."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clipgs_plugin.search.approximate import Approximate
from clipgs_plugin.search.vectors import Vectors

NEIGHBORS = 50  # of a row that codes are asked for


def duplicate_groups(vectors: Vectors, threshold: float, approximate: Approximate | None = None) -> list[list[int]]:
    """Return groups of rows, ascending, that chains of cosines of at least ``threshold`` connect, largest first.

    Args:
        vectors: Rows.
        threshold: Least cosine of a pair, above 0 and at most 1.
        approximate: Codes whose candidates are compared; without them, all pairs are.

    Raises:
        ValueError: The threshold is out of range.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    if not 0 < threshold <= 1:
        raise ValueError(f'threshold {threshold}: expected a cosine above 0, at most 1')
    pairs = [np.empty((2, 0), np.int64),
             *(_all_pairs(vectors, threshold) if approximate is None else _near_pairs(vectors, threshold, approximate))]
    first, second = np.concatenate(pairs, 1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(vectors),) * 2)
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind='stable')
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    found = [group.tolist() for group in groups if len(group) > 1]
    return sorted(found, key=lambda group: (-len(group), group))


def _all_pairs(vectors: Vectors, threshold: float) -> Iterator[np.ndarray]:
    """Yield all pairs of rows (2, m) with a cosine of at least the threshold, a block by a block at a time."""
    for rows, _ in vectors.steps():
        block = vectors.take(rows)  # unit to the last digit, so that a copy of a row reaches 1
        for others, _ in vectors.steps(np.arange(rows[0], len(vectors))):
            scores = block @ vectors.take(others).T
            i, j = (scores >= threshold - 1e-6).nonzero().T.numpy()
            later = others[j] > rows[i]
            yield np.stack([rows[i[later]], others[j[later]]])


def _near_pairs(vectors: Vectors, threshold: float, approximate: Approximate) -> Iterator[np.ndarray]:
    """Yield pairs among the probable neighbours of each row."""
    for rows, _ in vectors.steps():
        for row, vector in zip(rows, vectors.take(rows)):
            found, scores = approximate.nearest(vector, NEIGHBORS)
            near = found[(scores >= threshold - 1e-6).numpy() & (found != row)]
            yield np.stack([np.full(len(near), row), near])


def least_cosine(vectors: Vectors, group: list[int]) -> float:
    """Return the least cosine of a row of a group to the first one."""
    first = vectors.take(group[:1])[0]
    return min(float((vectors.take(group[i:i + 8192]) @ first).min()) for i in range(0, len(group), 8192))
