"""Groups of objects that lie together in the embedding space."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

MOST = 40
_ROUNDS = 50


def spherical_kmeans(
    vectors: np.ndarray,  # (n, E) unit
    count: int,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Group unit vectors by cosine, with k-means++ starts.

    Args:
        vectors: Unit vectors, (n, E).
        count: Number of groups, 1 to n; groups that become empty are left out.
        seed: Random seed.

    Returns:
        Group of each vector, (n,), from the largest group to the smallest; and unit centres, (groups, E).

    Raises:
        ValueError: The number of groups is out of range.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f'{count} clusters of {len(vectors)} objects; expected 1 to {len(vectors)}')
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[chosen[-1]], 0))
        total = distance.sum()
        chosen.append(int(rng.choice(len(vectors), p=distance / total)) if total > 1e-9 else chosen[-1])
    centers, groups = vectors[chosen], None
    for _ in range(_ROUNDS):
        found = (vectors @ centers.T).argmax(1)
        if groups is not None and (found == groups).all():
            break
        groups = found
        sums = np.stack([vectors[groups == i].sum(0) for i in range(len(centers))])
        centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    sizes = np.bincount(groups, minlength=len(centers))
    order = [i for i in np.argsort(-sizes, kind='stable') if sizes[i]]
    place = np.empty(len(centers), np.int64)
    place[order] = np.arange(len(order))
    return place[groups], centers[order]


def usual_count(objects: int) -> int:
    """Return the default number of clusters, the square root of half of the number of objects."""
    return int(np.clip(round((objects / 2) ** 0.5), 1, min(MOST, max(objects, 1))))


def cluster_names(
    vectors: np.ndarray,   # (n, E) unit
    groups: np.ndarray,    # (n,)
    centers: np.ndarray,   # (groups, E) unit
    labels: Sequence[str | None],
    names: Sequence[str],
) -> list[str]:
    """Name clusters by their commonest label, or by the object nearest to the centre where there are no labels."""
    found = []
    for i, center in enumerate(centers):
        inside = np.flatnonzero(groups == i)
        counts = Counter(labels[j] for j in inside if labels[j])
        if counts:
            label, count = counts.most_common(1)[0]
            found.append(f'{label} and others' if count < len(inside) else label)
        else:
            found.append(f'like {names[int(inside[(vectors[inside] @ center).argmax()])]}')
    return [f'{i + 1}: {name}' for i, name in enumerate(found)]
