"""Queries of several parts: "this, but red", "a chair, not of wood"."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import normalize

LEAST = 1e-3  # length of a sum that still has a direction


def mix_queries(
    embeddings: Sequence[Tensor],  # of (E,)
    weights: Sequence[float],      # negative for what is not wanted
) -> Tensor:
    """Return the weighted mean of the unit vectors of queries as a unit vector, (E,).

    Raises:
        ValueError: The numbers of both differ, no weight is positive, or the parts cancel out.
    """
    if len(embeddings) != len(weights) or not any(weight > 0 for weight in weights):
        raise ValueError(f'{len(embeddings)} queries with weights {list(weights)}, expected one a query, at least '
                         'one of them positive')
    mixed = sum(weight * normalize(part, dim=0) for part, weight in zip(embeddings, weights))
    length = float(mixed.norm())
    if not length > LEAST * sum(map(abs, weights)):
        raise ValueError('the parts of the query cancel out; change their weights')
    return mixed / length
