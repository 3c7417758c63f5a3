"""Codebooks and palettes against plain loops and known answers."""
from itertools import accumulate, pairwise

import numpy as np

from clipgs_plugin.io.codebooks import fit_codebook, halve


def plain_codebook(values: np.ndarray, size: int, rounds: int = 20) -> list[float]:
    """Lloyd's algorithm by loops, on 16 bins an entry with the cube root of their counts as weights."""
    low, high, bins = float(values.min()), float(values.max()), 16 * size
    members = {}
    for value in values.tolist():
        members.setdefault(min(int((value - low) / (high - low) * bins), bins - 1), []).append(value)
    cells = [(sum(found) / len(found), len(found) ** (1 / 3)) for _, found in sorted(members.items())]
    total, codebook = sum(weight for _, weight in cells), []
    for i in range(size):
        share = (i + 0.5) / size
        reached = accumulate(weight for _, weight in cells)
        centre = next(centre for (centre, _), mass in zip(cells, reached) if mass >= share * total)
        codebook.append((centre + low + (high - low) * share) / 2)
    for _ in range(rounds):
        groups = [[] for _ in codebook]
        for centre, weight in cells:
            groups[sum(centre >= (a + b) / 2 for a, b in pairwise(codebook))].append((centre, weight))
        codebook = [sum(c * w for c, w in group) / sum(w for _, w in group) if group else old
                    for group, old in zip(groups, codebook)]
    return codebook


def test_a_codebook_equals_that_of_plain_loops():
    rng = np.random.default_rng(0)
    # Skewed, with values in the last bins too.
    values = np.concatenate([rng.lognormal(size=2000), np.linspace(30, 31, 200)]).astype(np.float32)
    codebook, index = fit_codebook(values, size=8)
    np.testing.assert_allclose(codebook, plain_codebook(values.astype(np.float64), 8), rtol=1e-9)
    assert np.array_equal(index, np.abs(values[:, None] - codebook).argmin(1))


def test_few_values_are_kept_exactly():
    values = np.array([3.0, 1.0, 3.0, 2.0], np.float32)
    codebook, index = fit_codebook(values, size=4)
    assert codebook.tolist() == [1, 2, 3, 3] and index.tolist() == [2, 0, 2, 1]


def test_as_many_points_as_centroids_stay_in_order():
    points = np.random.default_rng(0).normal(size=(7, 3))
    centroids, labels = halve(points, 7)
    assert np.array_equal(centroids, points) and labels.tolist() == list(range(7))


def test_halving_splits_the_widest_axis():
    points = np.array([[0.0, 9], [0, 0], [1, 10], [1, 1]])
    centroids, labels = halve(points, 2)
    assert sorted(centroids.tolist()) == [[0.5, 0.5], [0.5, 9.5]]
    assert labels[0] == labels[2] != labels[1] == labels[3]
