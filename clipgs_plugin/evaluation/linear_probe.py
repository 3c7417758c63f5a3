"""A linear classifier on frozen features."""
from __future__ import annotations

from torch import Tensor

from clipgs_plugin.models.heads import LinearProbe


def linear_probe(
    features: Tensor,          # (N, D) labelled
    labels: Tensor,            # (N,) int64, each 0..C - 1
    queries: Tensor,           # (M, D)
    weight_decay: float = 1.0,
    max_iter: int = 200,
) -> Tensor:                   # (M,) int64
    """Classify queries by :class:`~clipgs_plugin.models.heads.LinearProbe`.

    Args:
        features: Labelled features, (N, D).
        labels: Their classes, (N,) int64.
        queries: Features to classify, (M, D).
        weight_decay: Strength of the regularisation; 1 is scikit-learn's default.
        max_iter: Maximum number of L-BFGS steps.

    Returns:
        Classes of the queries, (M,) int64.

    Raises:
        ValueError: Shapes do not fit, or no features are labelled.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or queries.shape[1:] != features.shape[1:]:
        raise ValueError(f'features {tuple(features.shape)}, labels {tuple(labels.shape)} and queries '
                         f'{tuple(queries.shape)} do not fit: expected (N, D), (N,) and (M, D)')
    if not len(features):
        raise ValueError('no labelled features: a linear probe needs at least one')
    return LinearProbe(weight_decay, max_iter).fit(features, labels)(queries).argmax(-1)
