"""Placing Gaussians by the world matrix of a node in a scene."""
from __future__ import annotations

import numpy as np
import torch

from clipgs_plugin.io.quantise import MIN_LOG_SCALE
from clipgs_plugin.ops.rotations import matrix_to_quaternion
from clipgs_plugin.structures import GaussianCloud


def place(cloud: GaussianCloud, matrix: np.ndarray, name: str) -> GaussianCloud:
    """Apply a matrix that is a translation, a rotation and positive scales.

    Columns of the same length are a similarity. Columns of different lengths stretch the Gaussians, which stay
    Gaussians of other scales and orientations, and turn their harmonics by the rotation alone.

    Args:
        cloud: Gaussians.
        matrix: World matrix of their node, (4, 4) float64, which acts on column vectors.
        name: File and node, for the error.

    Raises:
        ValueError: The matrix mirrors, shears or is singular.
    """
    if np.array_equal(matrix, np.eye(4)):
        return cloud  # bit for bit
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    lengths = np.linalg.norm(linear, axis=0)
    with np.errstate(all='ignore'):
        determinant = np.linalg.det(linear / lengths)
    if not (abs(determinant - 1) < 1e-3 and np.isfinite(lengths).all() and np.array_equal(matrix[3], [0, 0, 0, 1])):
        raise ValueError(f'{name} has a matrix that mirrors, shears or is singular (determinant {determinant:.4g} of '
                         'its unit columns, expected 1); apply it to the Gaussians in the program that wrote them')
    left, _, right = np.linalg.svd(linear / lengths)
    rotation, linear, offset = (torch.from_numpy(x.copy()) for x in (left @ right, linear, offset))
    if lengths.max() < lengths.min() * (1 + 1e-6):
        return cloud.transform(rotation * float(lengths.mean()), offset)
    turned = cloud.transform(rotation)
    axes, deviations, _ = torch.linalg.svd(linear @ (cloud.rotations * cloud.scales[:, None]).double())
    axes = axes * torch.linalg.det(axes)[:, None, None]  # proper; the sign of all axes has no effect
    means = cloud.means.double() @ linear.T + offset
    return turned.replace(means=means.float(), quats=matrix_to_quaternion(axes).float(),
                          log_scales=deviations.log().clamp(min=MIN_LOG_SCALE).float())


def join(clouds: list[GaussianCloud]) -> GaussianCloud:
    """Concatenate clouds, with the highest SH degree among them."""
    degree = max(cloud.sh_degree for cloud in clouds)
    fields = [dict(cloud.with_sh_degree(degree).fields()) for cloud in clouds]
    return GaussianCloud(**{name: torch.cat([field[name] for field in fields]) for name in fields[0]})
