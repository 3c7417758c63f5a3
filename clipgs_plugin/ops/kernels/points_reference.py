"""Point operations in plain torch on any device, the reference of all backends.

Callers check the arguments: points are float32, lengths and starts int64.
"""
from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 24  # distances per block of queries, 64 MB


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances (...) of points (..., 3), broadcast; all backends use this order of summation."""
    dx, dy, dz = (a - b).unbind(-1)
    return (dx * dx + dy * dy) + dz * dz


def fps(
    points: Tensor,        # (B, N, 3)
    lengths: Tensor,       # (B,)
    starts: Tensor,        # (B,)
    skip: Tensor | None,   # (B, N) bool, points never picked after the start
    num_samples: int,
) -> Tensor:               # (B, G)
    """Sample farthest points, one pick of all clouds at a time."""
    b, n, _ = points.shape
    padding = torch.arange(n, device=points.device) >= lengths[:, None]
    points = points.masked_fill(padding[..., None], 0)  # it may hold NaN, the maximum of any comparison
    distance = torch.full((b, n), torch.inf, device=points.device)
    if skip is not None:
        distance[skip] = -1
    distance[padding] = -2
    picks = [starts]
    for _ in range(1, min(num_samples, n)):
        last = points.gather(1, picks[-1][:, None, None].expand(-1, -1, 3))
        distance = torch.minimum(distance, squared_distance(points, last))
        picks.append(distance.argmax(-1))  # the first of equal maxima
    return repeat_cyclically(torch.stack(picks, dim=-1), lengths, num_samples)


def knn(
    points: Tensor,   # (B, N, 3)
    queries: Tensor,  # (B, G, 3)
    lengths: Tensor,  # (B,)
    k: int,
) -> tuple[Tensor, Tensor]:  # (B, G, K), (B, G, K)
    """Find nearest neighbours from all distances, one block of queries at a time."""
    b, n, _ = points.shape
    index = torch.arange(n, device=points.device)
    padding = index >= lengths[:, None, None]
    found = []
    for block in queries.split(max(1, _CHUNK // (b * n)), dim=1):
        distance = squared_distance(block[:, :, None], points[:, None]).masked_fill_(padding, torch.inf)
        # Bits of non-negative floats have the order of the floats; the index below them ranks equal distances.
        rank = distance.view(torch.int32).long() << 32 | index
        rank = rank.topk(min(k, n), largest=False).values
        nearest = rank & 0xFFFFFFFF
        found.append((nearest, distance.gather(-1, nearest)))
    neighbors, distances = (torch.cat(parts, dim=1) for parts in zip(*found))
    return repeat_cyclically(neighbors, lengths, k), repeat_cyclically(distances, lengths, k)


def ball_query(
    points: Tensor,   # (B, N, 3)
    queries: Tensor,  # (B, G, 3)
    lengths: Tensor,  # (B,)
    radius: float,
    k: int,
) -> Tensor:          # (B, G, K)
    """Find the first points within a radius from all distances, one cloud at a time."""
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


def group(
    points: Tensor,       # (B, N, 3)
    lengths: Tensor,      # (B,)
    starts: Tensor,       # (B,)
    skip: Tensor | None,  # (B, N) bool
    num_groups: int,
    group_size: int,
) -> tuple[Tensor, Tensor]:  # (B, G), (B, G, K)
    """Sample centres, and find the nearest neighbours of each."""
    centers = fps(points, lengths, starts, skip, num_groups)
    queries = points.gather(1, centers[..., None].expand(-1, -1, 3))
    return centers, knn(points, queries, lengths, group_size)[0]


def repeat_cyclically(found: Tensor, lengths: Tensor, count: int) -> Tensor:
    """Extend the last axis of (B, ..., M) to ``count`` by repeating the first ``length`` entries of each cloud."""
    entry = torch.arange(count, device=found.device) % lengths[:, None]
    entry = entry.view(len(lengths), *[1] * (found.ndim - 2), count).expand(*found.shape[:-1], count)
    return found.gather(-1, entry)
