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
    points, queries, lengths = _check(points, queries, k, lengths)
    return load_backend('knn', backend, points.device).knn(points, queries, lengths, k)


@torch.no_grad()
def ball_query(
    points: Tensor,
    queries: Tensor,
    radius: float,
    k: int,
    lengths: Tensor | None = None,
) -> Tensor:
    """The first k points, in the order of the cloud, within a radius of each query.

    Where fewer are within it the first of them is repeated, and where none is, the nearest ones stand in.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        queries: Positions, (B, G, 3), which need not be among the points.
        radius: In the unit of the points, above 0. Squared distances are compared in float32, and equal is within.
        k: Points of each query, at least 1.
        lengths: Points of each cloud, (B,), each 1..N; the rest is padding. All N where None.

    Returns:
        Indices, (B, G, K), int64, ascending but for the repeats at the end.

    Raises:
        ValueError: A shape or length does not fit, the radius is not positive, or a point is NaN or infinite.

    Source: Qi et al., "PointNet++", 2017.
    """
    if not radius > 0:
        raise ValueError(f'radius={radius}: expected a distance above 0')
    points, queries, lengths = _check(points, queries, k, lengths)
    n = points.shape[1]
    index = torch.arange(n, device=points.device)
    found = []
    for cloud, centers, length in zip(points, queries, lengths.tolist()):
        squared = (centers[:, None] - cloud[:length]).square().sum(-1)
        inside = squared <= radius ** 2
        inside |= ~inside.any(1, keepdim=True) & (squared == squared.amin(1, keepdim=True))
        first = torch.where(inside, index[:length], n).topk(min(k, length), dim=1, largest=False, sorted=True).values
        first = torch.cat([first, first[:, :1].expand(-1, k - first.shape[1])], dim=1)
        found.append(torch.where(first == n, first[:, :1], first))
    return torch.stack(found)


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
