"""Nearest neighbours of query points."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.backends import load_backend
from clipgs_plugin.ops.detached import detached
from clipgs_plugin.ops.sampling import check_count, check_finite, check_points


@detached
def knn(
    points: Tensor,
    queries: Tensor,
    k: int,
    lengths: Tensor | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Find the k points nearest to each query, nearest first.

    Every backend returns the same indices: squared distances are float32, ``(dx * dx + dy * dy) + dz * dz``, and ties
    are broken by the lower index. A cloud of ``n < k`` points repeats its ``n`` neighbours cyclically;
    ``arange(k) < lengths[:, None, None]`` masks the repeats.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        queries: Query positions, (B, G, 3).
        k: Number of neighbours of each query, at least 1.
        lengths: Number of points of each cloud, (B,), each 1..N; the rest is padding. None means N.
        backend: ``'auto'`` or one of ``available_backends('knn')``.

    Returns:
        Indices, (B, G, K), int64, and squared distances, (B, G, K), float32, without gradients.

    Raises:
        ValueError: A shape, length or backend is wrong, or a point is NaN or infinite.
    """
    points, queries, lengths = _check(points, queries, k, lengths)
    return load_backend('knn', backend, points.device).knn(points, queries, lengths, k)


@detached
def ball_query(
    points: Tensor,
    queries: Tensor,
    radius: float,
    k: int,
    lengths: Tensor | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Find the first k points, in the order of the cloud, within a radius of each query.

    The first point found fills the remaining places. Without a point inside the radius, the nearest point is used.
    Every backend returns the same indices.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        queries: Query positions, (B, G, 3).
        radius: Radius in the unit of the points, above 0; a point at the radius is inside. Squared distances are
            compared in float32.
        k: Number of points of each query, at least 1.
        lengths: Number of points of each cloud, (B,), each 1..N; the rest is padding. None means N.
        backend: ``'auto'`` or one of ``available_backends('ball_query')``.

    Returns:
        Indices, (B, G, K), int64, ascending except for the repeats at the end.

    Raises:
        ValueError: A shape, length or backend is wrong, the radius is not positive, or a point is NaN or infinite.

    Source: Qi et al., "PointNet++", 2017.
    """
    if not radius > 0:
        raise ValueError(f'radius={radius}: expected a distance above 0')
    points, queries, lengths = _check(points, queries, k, lengths)
    return load_backend('ball_query', backend, points.device).ball_query(points, queries, lengths, radius, k)


def _check(points: Tensor, queries: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    points, lengths = check_points(points, lengths)
    check_count('k', k)
    if queries.ndim != 3 or queries.shape[::2] != points.shape[::2] or queries.device != points.device:
        raise ValueError(f'queries have shape {tuple(queries.shape)} on {queries.device}, expected '
                         f'({len(points)}, G, 3) on {points.device}')
    queries = queries.to(torch.float32).contiguous()
    if queries.device.type == 'cpu':
        check_finite('queries', queries)
    return points, queries, lengths
