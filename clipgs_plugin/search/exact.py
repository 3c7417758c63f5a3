"""Exact search by blocks, which needs memory for one block only."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.search.layout import REMEDY
from clipgs_plugin.search.vectors import Vectors


def nearest(
    vectors: Vectors,
    query: Tensor,  # (E,) unit
    k: int,
    chosen: np.ndarray | None = None,  # ascending rows to search; all by default
) -> tuple[np.ndarray, Tensor]:
    """Return the rows (m,) and cosines (m,) of the ``k`` nearest vectors, best first and ties by row.

    Raises:
        ValueError: A stored vector is damaged.
    """
    best = [np.empty(0, np.int64)]
    for rows, block in vectors.steps(chosen):
        scores = block @ query
        if not scores.isfinite().all():
            raise ValueError(f'{vectors.name}: a stored vector is not finite; {REMEDY}')
        if len(scores) > k:  # in order of rows, and more than k only if there are ties
            rows = rows[(scores >= scores.topk(k).values[-1]).nonzero()[:, 0].numpy()]
        best.append(rows)
    return rank(vectors, query, np.concatenate(best), k)


def rank(
    vectors: Vectors,
    query: Tensor,  # (E,) unit
    rows: np.ndarray,  # (m,) candidates, each once
    k: int,
) -> tuple[np.ndarray, Tensor]:
    """Return the ``k`` best of some rows and their cosines, best first and ties by row."""
    rows = np.sort(rows)
    scores, order = (vectors.take(rows) @ query).sort(descending=True, stable=True)
    return rows[order[:k].numpy()], scores[:k]


def unit_query(embedding: Tensor, width: int, model: str) -> Tensor:
    """Check a query (E,) and return it as float32 on the CPU.

    Raises:
        ValueError: It has another width than the index, or is not finite.
    """
    if embedding.shape != (width,):
        raise ValueError(f'query has shape {tuple(embedding.shape)}, the index holds vectors of {width}: was it made '
                         f'with another model ({model})?')
    embedding = embedding.detach().to('cpu', torch.float32)
    if not embedding.isfinite().all():
        raise ValueError('the query is not finite, expected a unit vector; embed it again')
    return embedding
