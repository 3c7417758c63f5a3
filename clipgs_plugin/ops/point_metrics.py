"""Distances between two samplings of a surface: of positions, of normals and of colours."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.neighbors import knn


def chamfer_distance(
    a: Tensor,  # (N, 3)
    b: Tensor,  # (M, 3)
) -> float:
    r"""Return the mean distance to the nearest point of the other set, averaged over both directions.

    .. math:: \frac{1}{2N} \sum_i \min_j |a_i - b_j| + \frac{1}{2M} \sum_j \min_i |b_j - a_i|

    Distances are not squared, so a few far points do not decide the result.
    """
    there, back = (float(nearest(x, y)[1].double().mean()) for x, y in ((a, b), (b, a)))
    return (there + back) / 2


def nearest(
    points: Tensor,   # (N, 3)
    targets: Tensor,  # (M, 3)
) -> tuple[Tensor, Tensor]:
    """Return the index of the target nearest to each point, (N,), and its distance, (N,)."""
    index, squared = knn(targets[None], points[None], 1)
    return index[0, :, 0], squared[0, :, 0].sqrt()


def color_error(
    points: Tensor,         # (N, 3)
    colors: Tensor,         # (N, 3) sRGB
    targets: Tensor,        # (M, 3)
    target_colors: Tensor,  # (M, 3) sRGB
) -> float:
    """Return the mean absolute difference of colours between each point and its nearest target, over channels."""
    index, _ = nearest(points, targets)
    return float((colors - target_colors[index]).abs().double().mean())


def normal_error(
    points: Tensor,          # (N, 3)
    targets: Tensor,         # (M, 3)
    target_normals: Tensor,  # (M, 3) unit
    neighbors: int = 16,
) -> float:
    """Return the mean angle, in degrees, between the normals that points imply and those of the nearest targets.

    The normal at a point is the direction in which its nearest points spread least, as a patch of a point model sees
    it. It has no sign, so the angles are at most 90 degrees.
    """
    index, _ = nearest(points, targets)
    cosines = (implied_normals(points, neighbors) * target_normals[index].double()).sum(-1).abs().clamp(max=1)
    return float(torch.rad2deg(cosines.acos()).mean())


def implied_normals(
    points: Tensor,  # (N, 3)
    neighbors: int = 16,
) -> Tensor:
    """Return unit normals (N, 3) float64, of no particular sign: axes of least spread of the nearest points."""
    index, _ = knn(points[None], points[None], min(neighbors, len(points)))
    patches = points.double()[index[0]]
    offsets = patches - patches.mean(1, keepdim=True)
    return torch.linalg.eigh(offsets.transpose(1, 2) @ offsets).eigenvectors[..., 0]
