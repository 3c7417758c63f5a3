"""Scores of objects for texts."""
from __future__ import annotations

from torch import Tensor


def class_probabilities(embeddings: Tensor, classes: Tensor, scale: float) -> Tensor:
    """Compute the probability of each class for each object, (M, C): the softmax of scaled cosines.

    Args:
        embeddings: Unit vectors of the objects, (M, E).
        classes: Unit vectors of the classes, (C, E).
        scale: Scale of the cosines, ``model.logit_scale.exp()``.
    """
    return (scale * embeddings @ classes.T).softmax(-1)


def cosines(embeddings: Tensor, query: Tensor) -> Tensor:
    """Compute the cosine of each object, (M, E) unit vectors, to a query (E,), (M,)."""
    return embeddings @ query
