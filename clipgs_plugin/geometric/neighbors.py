"""Neighbours and centres of point clouds that lie in one list of nodes.

The kernels of this library are the default, since torch-geometric's need pyg-lib. Indices refer to the list of nodes.
"""
from __future__ import annotations

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from clipgs_plugin import ops
from clipgs_plugin.ops.sampling import check_count

BACKENDS = ('auto', 'clipgs', 'pyg')


def knn(
    x: Tensor,                          # (N, 3) points
    y: Tensor,                          # (M, 3) queries
    k: int,
    batch_x: Tensor | None = None,      # (N,) int64, sorted; None is one cloud
    batch_y: Tensor | None = None,      # (M,) int64, sorted
    backend: str = 'auto',
) -> Tensor:
    """Find the k points nearest to each query of the same cloud, with the result of :func:`torch_geometric.nn.knn`.

    Args:
        x: Points, (N, 3).
        y: Queries, (M, 3).
        k: Number of neighbours; a smaller cloud gives all its points.
        batch_x: Cloud of each point, (N,).
        batch_y: Cloud of each query, (M,). Every cloud with queries has points.
        backend: ``'clipgs'`` are the kernels of this library, which break ties by the lower index. ``'pyg'`` is
            torch-geometric's, which needs pyg-lib. ``'auto'`` takes pyg-lib on a GPU where it is installed.

    Returns:
        (2, E): row 0 is the query and row 1 the point of each edge, queries in order, nearest point first.
    """
    check_count('k', k)
    if _use_pyg(backend, x):
        from torch_geometric.nn import knn as pyg_knn
        return pyg_knn(x, y, k, batch_x, batch_y)
    batch_x, batch_y = (x.new_zeros(len(points), dtype=torch.long) if batch is None else batch
                        for points, batch in ((x, batch_x), (y, batch_y)))
    size = int(max(batch_x[-1], batch_y[-1])) + 1
    points, mask = to_dense_batch(x, batch_x, batch_size=size)
    queries, query_mask = to_dense_batch(y, batch_y, batch_size=size)
    lengths = mask.sum(1)
    neighbors = ops.knn(points, queries, k, lengths)[0]                                    # (B, G, K)
    neighbors = (neighbors + (lengths.cumsum(0) - lengths)[:, None, None])[query_mask]     # (M, K)
    real = torch.arange(k, device=x.device) < lengths[batch_y, None]                       # without repeats
    rows = torch.arange(len(y), device=x.device)[:, None].expand_as(neighbors)
    return torch.stack([rows[real], neighbors[real]])


def knn_graph(pos: Tensor, k: int, batch: Tensor | None = None, backend: str = 'auto') -> Tensor:
    """Return the edges to each node from its k nearest, itself included, (2, E), sources in row 0.

    Args:
        pos: Positions, (N, 3).
        k: Number of neighbours, the node itself included; a smaller cloud is complete.
        batch: Cloud of each node, (N,), sorted.
        backend: See :func:`knn`.
    """
    return knn(pos, pos, k, batch, batch, backend).flip(0)


def farthest_points(pos: Tensor, num_samples: int, batch: Tensor | None = None) -> Tensor:
    """Pick nodes of each cloud by farthest point sampling, starting far from the centroid.

    :func:`torch_geometric.nn.fps` takes a share of the nodes; this takes a number.

    Args:
        pos: Positions, (N, 3).
        num_samples: Number of nodes per cloud; a smaller cloud gives all its nodes.
        batch: Cloud of each node, (N,), sorted.

    Returns:
        Indices of the nodes, (M,), cloud after cloud, in the order of picking.
    """
    batch = pos.new_zeros(len(pos), dtype=torch.long) if batch is None else batch
    points, mask = to_dense_batch(pos, batch)
    lengths = mask.sum(1)
    index = ops.farthest_point_sample(points, num_samples, lengths, start='farthest')
    index = index + (lengths.cumsum(0) - lengths)[:, None]
    return index[torch.arange(num_samples, device=pos.device) < lengths[:, None]]


def _use_pyg(backend: str, points: Tensor) -> bool:
    if backend not in BACKENDS:
        raise ValueError(f'backend={backend!r}: expected one of {BACKENDS}')
    # pyg-lib, or torch-cluster before PyG 2.8.
    installed = any(getattr(torch_geometric.typing, name, False) for name in ('WITH_KNN', 'WITH_TORCH_CLUSTER'))
    if backend == 'pyg' and not installed:
        raise ModuleNotFoundError("backend='pyg' needs pyg-lib, see https://data.pyg.org/whl; backend='clipgs' works "
                                  'without it')
    return backend == 'pyg' or (backend == 'auto' and installed and points.is_cuda)
