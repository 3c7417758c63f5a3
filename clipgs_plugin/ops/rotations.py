"""Rotations of Gaussians.

Convention: quaternions are wxyz (real part first) and need not be unit; matrices act on column vectors, and the
columns of a Gaussian's rotation are its principal axes.
"""
import math

import torch
from torch import Tensor


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """Return the rotation matrices of quaternions.

    Args:
        quats: Quaternions wxyz of any non-zero norm, (..., 4). ``q`` and ``-q`` return bitwise equal matrices.

    Returns:
        Proper rotation matrices, (..., 3, 3).
    """
    # Squares of very small or large components would leave the range of float32.
    w, x, y, z = (quats / quats.detach().abs().amax(-1, keepdim=True)).unbind(-1)
    two_s = 2.0 / (w * w + x * x + y * y + z * z)
    matrix = torch.stack([
        1 - two_s * (y * y + z * z), two_s * (x * y - z * w), two_s * (x * z + y * w),
        two_s * (x * y + z * w), 1 - two_s * (x * x + z * z), two_s * (y * z - x * w),
        two_s * (x * z - y * w), two_s * (y * z + x * w), 1 - two_s * (x * x + y * y),
    ], dim=-1)
    return matrix.unflatten(-1, (3, 3))


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the Hamilton product: the rotation ``b`` followed by the rotation ``a``.

    Args:
        a: Quaternions wxyz, (..., 4).
        b: Quaternions wxyz, (..., 4), broadcast against ``a``.

    Returns:
        (..., 4), with norm ``|a| |b|``.
    """
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ], dim=-1)


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """Return unit quaternions, wxyz with w >= 0, of proper rotation matrices.

    The largest component is computed from the diagonal and the others from it, which is stable for every angle.

    Args:
        matrices: Rotation matrices of determinant +1, (..., 3, 3).

    Returns:
        (..., 4)

    Source: Shepperd, "Quaternion from rotation matrix", 1978.
    """
    m = matrices
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sxy, szx, syz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # Row i is 4 q_i (w, x, y, z): any row with a large q_i is the quaternion up to scale.
    rows = torch.stack([
        torch.stack([1 + xx + yy + zz, yz, zx, xy], -1),
        torch.stack([yz, 1 + xx - yy - zz, sxy, szx], -1),
        torch.stack([zx, sxy, 1 - xx + yy - zz, syz], -1),
        torch.stack([xy, szx, syz, 1 - xx - yy + zz], -1),
    ], dim=-2)
    best = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(-1)
    quats = torch.take_along_dim(rows, best[..., None, None], dim=-2).squeeze(-2)
    quats = torch.nn.functional.normalize(quats, dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


AXES = ('x', 'y', 'z', '-x', '-y', '-z')


def axis_vector(name: str) -> Tensor:
    """Return the unit vector along a coordinate axis, (3,) float64.

    Args:
        name: Axis, one of ``AXES``.

    Raises:
        ValueError: Unknown axis.
    """
    if name not in AXES:
        raise ValueError(f'axis {name!r}: expected one of {AXES}')
    vector = torch.zeros(3, dtype=torch.float64)
    vector['xyz'.index(name[-1])] = -1 if name.startswith('-') else 1
    return vector


def axis_change(source: str, target: str = 'y') -> Tensor:
    """Return the rotation from one coordinate axis to another, to change the up axis.

    Args:
        source: Axis to rotate, one of ``AXES``.
        target: Axis after the rotation, one of ``AXES``.

    Returns:
        Proper rotation matrix of exact integers, (3, 3) float64. Perpendicular axes need a quarter turn about the third
        axis, opposite axes a half turn about x (about y if ``source`` lies along x), equal axes the identity.

    Raises:
        ValueError: Unknown axis.
    """
    start, end = axis_vector(source), axis_vector(target)
    cosine = float(start @ end)
    if cosine == 0:
        third = torch.linalg.cross(start, end)
        return torch.outer(end, start) - torch.outer(start, end) + torch.outer(third, third)
    if cosine > 0:
        return torch.eye(3, dtype=torch.float64)
    about = axis_vector('y' if source.endswith('x') else 'x')
    return 2 * torch.outer(about, about) - torch.eye(3, dtype=torch.float64)


def y_rotation(angle: float) -> Tensor:
    """Return the rotation about y by an angle in radians, (3, 3) float64."""
    return quaternion_to_matrix(torch.tensor([math.cos(angle / 2), 0, math.sin(angle / 2), 0], dtype=torch.float64))
