"""Point operations by pytorch3d, an optional package.

On the CPU the indices equal those of the other backends. On CUDA the last bit of a distance and the order of ties may
differ.
"""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.kernels import points_reference
from clipgs_plugin.ops.kernels.points_reference import repeat_cyclically

_BAND = 1e-6  # relative width of the shell about a ball in which rounding may decide, some units in the last place


def fps(points: Tensor, lengths: Tensor, starts: Tensor, skip: Tensor | None, num_samples: int) -> Tensor:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.fps`, without ``skip``."""
    from pytorch3d.ops import sample_farthest_points
    if skip is not None:
        raise ValueError("backend='pytorch3d' has no rule='pointnet2'; use backend='auto'")
    # pytorch3d starts at index 0, so the start moves to the front. The others keep their order, and so do ties.
    index = torch.arange(points.shape[1], device=points.device)
    order = torch.where(index == 0, starts[:, None], index - (index <= starts[:, None]).long())
    _, picks = sample_farthest_points(points.gather(1, order[..., None].expand_as(points)), lengths, K=num_samples)
    centers = order.gather(1, picks.clamp(min=0))
    centers[:, 1:][picks[:, 1:] == 0] = 0  # the front again: only ties are left, and the lowest index wins
    return repeat_cyclically(centers, lengths, num_samples)


def knn(points: Tensor, queries: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.knn`."""
    from pytorch3d.ops import knn_points
    # On the CPU neighbours are already sorted; sorting again may exchange ties.
    squared, neighbors, _ = knn_points(queries, points, lengths2=lengths, K=min(k, points.shape[1]),
                                       return_sorted=points.device.type != 'cpu')
    return repeat_cyclically(neighbors, lengths, k), repeat_cyclically(squared, lengths, k)


def ball_query(points: Tensor, queries: Tensor, lengths: Tensor, radius: float, k: int) -> Tensor:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.ball_query`.

    pytorch3d excludes points at the radius and finds nothing for a query without points inside. The reference answers
    such queries.
    """
    from pytorch3d.ops import ball_query as find_inside
    squared, found, _ = find_inside(queries, points, lengths2=lengths, K=k, radius=radius * (1 + _BAND),
                                    return_nn=False)
    found = torch.where(found < 0, found[..., :1], found)
    unsure = (found[..., 0] < 0) | (squared >= (1 - _BAND) * radius ** 2).any(-1)
    for cloud in unsure.any(-1).nonzero()[:, 0]:
        rows = unsure[cloud]
        one = slice(cloud, cloud + 1)
        found[cloud, rows] = points_reference.ball_query(points[one], queries[one, rows], lengths[one], radius, k)[0]
    return found


def group(
    points: Tensor, lengths: Tensor, starts: Tensor, skip: Tensor | None, num_groups: int, group_size: int,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.group`."""
    centers = fps(points, lengths, starts, skip, num_groups)
    queries = points.gather(1, centers[..., None].expand(-1, -1, 3))
    return centers, knn(points, queries, lengths, group_size)[0]
