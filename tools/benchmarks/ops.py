"""Farthest point sampling, nearest neighbours and orders."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.tools.benchmarks.inputs import noisy_tori
from clipgs_plugin.tools.benchmarks.timing import Case, compare, on_threads


def plain_fps(points: Tensor, num_samples: int) -> Tensor:
    """Sample farthest points by the loop found in most point cloud code."""
    b, n, _ = points.shape
    picks = torch.zeros(b, num_samples, dtype=torch.int64)
    distance = torch.full((b, n), 1e10)
    farthest = torch.zeros(b, dtype=torch.int64)
    batch = torch.arange(b)
    for i in range(num_samples):
        picks[:, i] = farthest
        center = points[batch, farthest].view(b, 1, 3)
        squared = ((points - center) ** 2).sum(-1)
        closer = squared < distance
        distance[closer] = squared[closer]
        farthest = distance.max(-1)[1]
    return picks


def plain_knn(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """Find neighbours by all distances, from the expanded square, then the smallest."""
    squared = (queries ** 2).sum(-1)[:, :, None] - 2 * queries @ points.mT + (points ** 2).sum(-1)[:, None]
    return squared.topk(k, dim=-1, largest=False, sorted=False)[1]


def ops(points: int = 10_000, clouds: int = 8, groups: int = 512, size: int = 32, threads: str = '1,2') -> list[Case]:
    """Time farthest point sampling, neighbours and orders on the CPU; baseline: the naive loops in torch."""
    from clipgs_plugin import ops
    from clipgs_plugin.ops.ordering import CURVES

    batch = noisy_tori(clouds, points)
    columns = torch.cat([batch, torch.rand(clouds, points, 11)], dim=-1)
    naive_centers = plain_fps(batch, groups)
    centers, neighbors = ops.group(batch, groups, size)
    queries = batch.gather(1, centers[..., None].expand(-1, -1, 3))
    patches = batch.gather(1, neighbors.flatten(1)[..., None].expand(-1, -1, 3)).view(clouds, groups, size, 3)
    same = (naive_centers == centers).float().mean()
    same_sets = (plain_knn(batch, queries, size).sort().values == neighbors.sort().values).float().mean()
    standard = (points, clouds, groups, size) == (10_000, 8, 512, 32)

    def naive_group():
        plain_knn(batch, batch.gather(1, plain_fps(batch, groups)[..., None].expand(-1, -1, 3)), size)

    def cases() -> list[Case]:
        return [
            *compare('FPS and kNN', {
                'naive loop': naive_group,
                'reference': lambda: ops.group(batch, groups, size, backend='reference'),
                'cpu': lambda: ops.group(batch, groups, size, backend='cpu'),
            }, clouds, 'cloud', {'cpu': 2.5} if standard and torch.get_num_threads() == 2 else None),
            *compare('FPS', {
                'naive loop': lambda: plain_fps(batch, groups),
                'reference': lambda: ops.farthest_point_sample(batch, groups, backend='reference'),
                'cpu': lambda: ops.farthest_point_sample(batch, groups, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same:.2%} of the indices of the naive loop'}),
            *compare('kNN', {
                'naive': lambda: plain_knn(batch, queries, size),
                'reference': lambda: ops.knn(batch, queries, size, backend='reference'),
                'cpu': lambda: ops.knn(batch, queries, size, backend='cpu'),
            }, clouds, 'cloud', notes={'cpu': f'{same_sets:.2%} of the indices of the naive version'}),
            *[case for curve in CURVES for case in compare(
                f'{curve} order in patches', {'torch': lambda curve=curve: ops.curve_order(patches, curve)}, clouds,
                'cloud')],
            *compare('order by content', {
                'lexsort': lambda: [np.lexsort(rows.T[::-1]) for rows in columns.numpy()],
                'torch': lambda: ops.canonical_order(columns),
            }, clouds, 'cloud', {'torch': 2.0}),
        ]
    return on_threads(threads, cases)
