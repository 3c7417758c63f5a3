"""Real spherical harmonics of degree 0 to 3, in the convention of splat files.

The convention is that of the INRIA code (Kerbl et al., "3D Gaussian Splatting", 2023): orthonormal, band by band,
orders -l to l, with the Condon-Shortley sign. The colour seen along the unit direction d from the camera to a
Gaussian is ``0.5 + sum_k basis_k(d) sh_k``, clamped at 0.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

C0 = 0.28209479177387814   # sqrt(1 / 4 pi)
C1 = 0.4886025119029199    # sqrt(3 / 4 pi)
C2 = (1.0925484305920792,  # sqrt(15 / 4 pi)
      0.31539156525252005,  # sqrt(5 / 16 pi)
      0.5462742152960396)  # sqrt(15 / 16 pi)
C3 = (0.5900435899266435,  # sqrt(35 / 32 pi)
      2.890611442640554,   # sqrt(105 / 4 pi)
      0.4570457994644658,  # sqrt(21 / 32 pi)
      0.3731763325901154,  # sqrt(7 / 16 pi)
      1.445305721320277)   # sqrt(105 / 16 pi)
MAX_DEGREE = 3


def eval_sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Evaluate the basis functions.

    Args:
        directions: Unit vectors, (..., 3), from the camera to the Gaussian.
        degree: Highest band, 0 to 3.

    Returns:
        (..., (degree + 1) ** 2), in the dtype of ``directions``.

    Raises:
        ValueError: The degree is out of range.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f'SH degree {degree} is not in 0..{MAX_DEGREE}')
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, C0)]
    if degree >= 1:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        basis += [C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z, C2[2] * (xx - yy)]
    if degree >= 3:
        basis += [-C3[0] * y * (3 * xx - yy), C3[1] * x * y * z, -C3[2] * y * (4 * zz - xx - yy),
                  C3[3] * z * (2 * zz - 3 * xx - 3 * yy), -C3[2] * x * (4 * zz - xx - yy), C3[4] * z * (xx - yy),
                  -C3[0] * x * (xx - 3 * yy)]
    return torch.stack(basis, dim=-1)


def eval_sh(sh: Tensor, directions: Tensor) -> Tensor:
    """Evaluate sRGB colours seen along directions, without clamping.

    Args:
        sh: Coefficients, (..., K, 3).
        directions: Unit vectors, (..., 3), from the camera to the Gaussian.

    Returns:
        (..., 3)
    """
    basis = eval_sh_basis(directions, round(sh.shape[-2] ** 0.5) - 1)
    return 0.5 + (basis[..., None] * sh).sum(-2)


def map_colors(sh: Tensor, curve: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of colours to the colours of harmonics, clamped at 0, and fit harmonics to the result.

    Args:
        sh: Coefficients, (..., K, 3).
        curve: Function of colours, (..., 3) to (..., 3).

    Returns:
        Least-squares fit over directions on the sphere, (..., K, 3) in the dtype of ``sh``; exact for degree 0.
    """
    degree = round(sh.shape[-2] ** 0.5) - 1
    basis = eval_sh_basis(_samples()[0], degree)  # (S, K)
    colors = curve((0.5 + basis @ sh.detach().cpu().double()).clamp(min=0))
    return (torch.linalg.pinv(basis) @ (colors - 0.5)).to(sh)


@cache
def _samples() -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return 32 directions over the sphere, (S, 3), and the pseudo-inverse of each band, (2 l + 1, S); float64."""
    n = 32
    i = torch.arange(n, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / n
    turn = i * torch.pi * (3 - 5 ** 0.5)  # the golden angle
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * turn.cos(), radius * turn.sin(), z], dim=-1)
    basis = eval_sh_basis(directions, MAX_DEGREE)
    bands = tuple(torch.linalg.pinv(basis[:, d * d:(d + 1) ** 2]) for d in range(MAX_DEGREE + 1))
    return directions, bands


def sh_rotation(matrix: Tensor, degree: int) -> list[Tensor]:
    """Return matrices that rotate the coefficients of each band (real Wigner matrices).

    A band is closed under rotation, so values of the rotated basis at a few fixed directions determine its matrix. A
    reflection also flips odd bands.

    Args:
        matrix: Orthogonal matrix of determinant 1 or -1, (3, 3).
        degree: Highest band, 0 to 3.

    Returns:
        Matrix (2 l + 1, 2 l + 1) of each band l, float64; it acts on columns of coefficients.
    """
    directions, inverses = _samples()
    matrix = matrix.detach().to('cpu', torch.float64)
    turned = eval_sh_basis(directions @ matrix, degree)  # rows of the argument are M^T d
    return [inverses[d] @ turned[:, d * d:(d + 1) ** 2] for d in range(degree + 1)]


def rotate_sh(sh: Tensor, matrix: Tensor) -> Tensor:
    """Rotate SH colours with their object: the new colour along M d is the old colour along d.

    Args:
        sh: Coefficients, (..., K, 3), K one of 1, 4, 9, 16.
        matrix: Orthogonal matrix of determinant 1 or -1, (3, 3).

    Returns:
        (..., K, 3), in the dtype of ``sh``; the constant band is unchanged.

    Raises:
        ValueError: The matrix is not orthogonal within 1e-4.
    """
    check = matrix.detach().to('cpu', torch.float64)
    if check.shape != (3, 3) or not torch.allclose(check @ check.T, torch.eye(3, dtype=torch.float64), atol=1e-4):
        raise ValueError(f'matrix {check.tolist()} is not orthogonal (3, 3); divide it by its scale first')
    degree = round(sh.shape[-2] ** 0.5) - 1
    bands = [sh[..., :1, :]]
    for d, rotation in enumerate(sh_rotation(matrix, degree)[1:], start=1):
        bands.append(rotation.to(sh) @ sh[..., d * d:(d + 1) ** 2, :])
    return torch.cat(bands, dim=-2)
