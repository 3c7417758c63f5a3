"""Codebooks of scalars and palettes of vectors, to which SOG quantises."""
from __future__ import annotations

import numpy as np


def fit_codebook(values: np.ndarray, size: int = 256, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Fit a codebook of ``size`` ascending values and return it with indices into it.

    Up to ``size`` distinct values are kept exactly. Otherwise Lloyd's algorithm runs on a histogram with weights
    count ** (1/3). Without the exponent, the few large Gaussians that fill an image would share few entries; without
    weights, the many small ones would.
    """
    values = values.astype(np.float32)
    distinct = np.unique(values).astype(np.float64)
    if len(distinct) <= size:
        codebook = np.concatenate([distinct, np.full(size - len(distinct), distinct[-1])])
        return codebook, np.searchsorted(distinct, values).astype(np.uint8)
    low, high, bins = distinct[0], distinct[-1], 16 * size
    flat = values.ravel().astype(np.float64)
    cells = np.minimum((flat - low) / (high - low) * bins, bins - 1).astype(np.int64)
    counts = np.bincount(cells, minlength=bins)
    used = counts > 0
    centres = np.bincount(cells, flat, bins)[used] / counts[used]
    weights = counts[used] ** (1 / 3)
    mass = np.concatenate([[0], np.cumsum(weights)])
    moment = np.concatenate([[0], np.cumsum(weights * centres)])
    share = (np.arange(size) + 0.5) / size
    quantiles = centres[np.searchsorted(mass[1:], share * mass[-1])]
    codebook = (quantiles + low + (high - low) * share) / 2  # entries for the bulk and the tails
    for _ in range(rounds):
        edges = np.concatenate([[0], np.searchsorted(centres, (codebook[1:] + codebook[:-1]) / 2), [len(centres)]])
        filled = np.diff(edges) > 0
        codebook[filled] = np.diff(moment[edges])[filled] / np.diff(mass[edges])[filled]
    return codebook, np.searchsorted((codebook[1:] + codebook[:-1]) / 2, values).astype(np.uint8)


def halve(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster points, (N, D), into at most ``size`` centroids by halving along the widest axis.

    k-means fits slightly better, but takes minutes instead of seconds for a palette of this size.

    Returns:
        Centroids, (M, D), and the index of the centroid of each point, (N,).
    """
    if len(points) <= size:
        return points, np.arange(len(points))
    labels = np.empty(len(points), np.int64)
    centroids = []
    stack = [(np.arange(len(points)), size)]
    while stack:
        index, leaves = stack.pop()
        block = points[index]
        leaves = min(leaves, len(index))
        axis = np.ptp(block, axis=0).argmax()
        if leaves == 1 or block[:, axis].min() == block[:, axis].max():
            labels[index] = len(centroids)
            centroids.append(block.mean(0))
            continue
        half = len(index) * (leaves // 2) // leaves
        order = index[np.argpartition(block[:, axis], half)]
        stack += [(order[:half], leaves // 2), (order[half:], leaves - leaves // 2)]
    return np.array(centroids), labels
