"""Nearest neighbours of query points."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.backends import load_backend
from clipgs_plugin.ops.sampling import check_count, check_finite, check_points


@torch.no_grad()
def knn(
    points: Tensor,
    queries: Tensor,
    k: int,
    lengths: Tensor | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """The k points nearest to each query, nearest first.

    Every backend gives the same indices: squared distances are float32, ``(dx * dx + dy * dy) + dz * dz``, and the
    lower index comes first in a tie. A cloud of ``n < k`` points gives its ``n`` neighbours over and over in the same
    order, so ``arange(k) < lengths[:, None, None]`` masks the repeats.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        queries: Positions, (B, G, 3), which need not be among the points.
        k: Neighbours of each query, at least 1.
        lengths: Points of each cloud, (B,), each 1..N; the rest is padding. All N where None.
        backend: ``'auto'`` or one of ``available_backends('knn')``.

    Returns:
        Indices, (B, G, K), int64, and squared distances, (B, G, K), float32, without a gradient.

    Raises:
        ValueError: A shape or length does not fit, a name is unknown, or a point is NaN or infinite.
    """
    points, lengths = check_points(points, lengths)
    check_count('k', k)
    if queries.ndim != 3 or queries.shape[::2] != points.shape[::2] or queries.device != points.device:
        raise ValueError(f'queries have shape {tuple(queries.shape)} on {queries.device}, expected '
                         f'({len(points)}, G, 3) on {points.device}')
    queries = queries.to(torch.float32).contiguous()
    if queries.device.type == 'cpu':
        check_finite('queries', queries)
    return load_backend('knn', backend, points.device).knn(points, queries, lengths, k)
