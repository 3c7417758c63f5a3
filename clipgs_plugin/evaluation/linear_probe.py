"""A linear classifier on frozen features."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_probe(
    features: Tensor,          # (N, D) labelled
    labels: Tensor,            # (N,) int64, each 0..C - 1
    queries: Tensor,           # (M, D)
    weight_decay: float = 1.0,
    max_iter: int = 200,
) -> Tensor:                   # (M,) int64
    r"""Classify queries by multinomial logistic regression on standardised features.

    .. math:: \min_{W, b} \sum_n \mathrm{CE}(W x_n + b, y_n) + \frac{\lambda}{2} \|W\|^2

    The problem is convex and the start is zero, so nothing is random.

    Args:
        features: Labelled features, (N, D).
        labels: Their classes, (N,) int64.
        queries: Features to classify, (M, D).
        weight_decay: :math:`\lambda`; 1 is scikit-learn's default.
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
    # The deviation of a single value is 0, not NaN.
    mean, deviation = features.double().mean(0), features.double().std(0, correction=min(1, len(features) - 1))
    scale = deviation.clamp(min=1e-6)
    x = (features.double() - mean) / scale
    weight = torch.zeros(int(labels.max()) + 1, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(len(weight), dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, history_size=10, line_search_fn='strong_wolfe',
                                  tolerance_grad=1e-6)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), labels, reduction='sum')
        value = value + weight_decay / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        return F.linear((queries.double() - mean) / scale, weight, bias).argmax(-1)
