"""Raw parameters of a 3D Gaussian Splatting object."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops.rotations import matrix_to_quaternion, quaternion_multiply, quaternion_to_matrix
from clipgs_plugin.ops.sampling import LARGEST_COORDINATE as LARGEST
from clipgs_plugin.ops.spherical_harmonics import C0 as SH_C0
from clipgs_plugin.ops.spherical_harmonics import MAX_DEGREE as MAX_SH_DEGREE
from clipgs_plugin.ops.spherical_harmonics import rotate_sh
from clipgs_plugin.structures.pointclouds import join_pointclouds, split_pointclouds

if TYPE_CHECKING:
    from pytorch3d.structures import Pointclouds

FIELDS = ('means', 'quats', 'log_scales', 'opacity_logits', 'sh')
LARGEST_LOG_SCALE = round(math.log(LARGEST), 2)
MISSING_COLOR = 0.4  # sRGB grey of points without colour, the convention of OpenShape, ULIP-2 and Uni3D


@dataclass(eq=False, repr=False)
class GaussianCloud:
    """3D Gaussians of one object (Kerbl et al., "3D Gaussian Splatting", 2023), before activation as in files.

    Convention: quaternions are wxyz and need not be unit. Scales are natural logarithms, opacities are logits. SH
    coefficients are ordered band by band, DC first, with the factor of the INRIA code (colour = 0.5 + C0 * DC + ...),
    sRGB. The frame is that of the file.

    The constructor checks shapes, :meth:`validate` checks values.
    """

    means: Tensor           # (N, 3)
    quats: Tensor           # (N, 4) wxyz
    log_scales: Tensor      # (N, 3)
    opacity_logits: Tensor  # (N,)
    sh: Tensor              # (N, (degree + 1) ** 2, 3)

    def __post_init__(self) -> None:
        n = self.means.shape[0] if self.means.ndim else -1
        expected = {'means': (n, 3), 'quats': (n, 4), 'log_scales': (n, 3), 'opacity_logits': (n,)}
        for field, shape in expected.items():
            found = tuple(getattr(self, field).shape)
            if found != shape:
                raise ValueError(f'{field} has shape {found}, expected {shape} for {n} Gaussians')
        bands = tuple((d + 1) ** 2 for d in range(MAX_SH_DEGREE + 1))
        found = tuple(self.sh.shape)
        if len(found) != 3 or found[0] != n or found[1] not in bands or found[2] != 3:
            raise ValueError(f'sh has shape {found}, expected ({n}, K, 3) with K one of {bands}')

    # Size and fields

    def __len__(self) -> int:
        return self.means.shape[0]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} Gaussians, SH degree {self.sh_degree}, {self.means.device})'

    @property
    def sh_degree(self) -> int:
        return round(self.sh.shape[1] ** 0.5) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    def fields(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over name and raw tensor of each field, in the order of ``FIELDS``."""
        return ((name, getattr(self, name)) for name in FIELDS)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> GaussianCloud:
        """Return a cloud with ``fn`` applied to every raw tensor."""
        return type(self)(**{name: fn(value) for name, value in self.fields()})

    def replace(self, **fields: Tensor) -> GaussianCloud:
        """Return a cloud with some raw tensors replaced."""
        return type(self)(**{**dict(self.fields()), **fields})

    def to(self, *args, **kwargs) -> GaussianCloud:
        return self.apply(lambda x: x.to(*args, **kwargs))

    def __getitem__(self, index) -> GaussianCloud:
        """Select Gaussians by number, slice, mask or index tensor, in its order.

        Raises:
            IndexError: The number is out of range.
        """
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f'index {index} is out of range for {len(self)} Gaussians')
            start = int(index) % len(self)
            index = slice(start, start + 1)
        return self.apply(lambda x: x[index])

    def with_sh_degree(self, degree: int) -> GaussianCloud:
        """Drop higher bands, or add bands of zeros; the DC colour stays."""
        if not 0 <= degree <= MAX_SH_DEGREE:
            raise ValueError(f'SH degree {degree} is not in 0..{MAX_SH_DEGREE}')
        bands = (degree + 1) ** 2
        padding = self.sh.new_zeros(len(self), max(0, bands - self.sh.shape[1]), 3)
        return self.replace(sh=torch.cat([self.sh[:, :bands], padding], dim=1))

    # Activated values

    @property
    def scales(self) -> Tensor:
        """Standard deviations along the principal axes, (N, 3)."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities in (0, 1), (N,)."""
        return self.opacity_logits.sigmoid()

    @property
    def rgb(self) -> Tensor:
        """View-independent sRGB colours clamped to [0, 1], (N, 3)."""
        return (0.5 + SH_C0 * self.sh[:, 0]).clamp(0, 1)

    @property
    def rotations(self) -> Tensor:
        """Rotation matrices whose columns are the principal axes, (N, 3, 3)."""
        return quaternion_to_matrix(self.quats)

    @property
    def covariances(self) -> Tensor:
        """Covariances R diag(scales^2) R^T, (N, 3, 3)."""
        axes = self.rotations * self.scales[:, None, :]
        return axes @ axes.transpose(-1, -2)

    def to_gsplat(self) -> dict[str, Tensor | int]:
        """Return the keyword arguments of ``gsplat.rasterization`` that describe Gaussians.

        The dict holds ``means``, ``quats`` (wxyz), activated ``scales`` and ``opacities``, the harmonics as ``colors``,
        and ``sh_degree``. Cameras, image size and options are left to the caller.
        """
        return dict(means=self.means, quats=self.quats, scales=self.scales, opacities=self.opacities, colors=self.sh,
                    sh_degree=self.sh_degree)

    @property
    def normals(self) -> Tensor:
        """Unit vectors along the shortest principal axes, pointing away from the mean of the means, (N, 3)."""
        shortest = self.log_scales.argmin(-1)[:, None, None]
        axes = torch.take_along_dim(self.rotations, shortest, dim=-1).squeeze(-1)
        inward = (axes * (self.means - self.means.mean(0))).sum(-1, keepdim=True) < 0
        return torch.where(inward, -axes, axes)

    def to_pointclouds(self, normals: bool = False) -> Pointclouds:
        """Return a ``pytorch3d.structures.Pointclouds`` of one cloud, see :meth:`GaussianBatch.to_pointclouds`."""
        return join_pointclouds([self], normals)

    @classmethod
    def from_pointclouds(cls, pointclouds: Pointclouds) -> GaussianCloud:
        """Return the Gaussians of a ``Pointclouds`` of one cloud, the inverse of :meth:`to_pointclouds`.

        Raises:
            ValueError: There is not exactly one cloud, or its features are not those of Gaussians.
        """
        if len(pointclouds) != 1:
            raise ValueError(f'the Pointclouds hold {len(pointclouds)} clouds, expected 1; '
                             'GaussianBatch.from_pointclouds takes any number')
        fields, = split_pointclouds(pointclouds)
        return cls(**fields)

    # Checks

    def invalid(self) -> Tensor:
        """Return the mask of Gaussians with non-finite or huge values or a zero quaternion, (N,) bool."""
        good = torch.ones(len(self), dtype=torch.bool, device=self.device)
        for name, value in self.fields():
            value = value.float() if value.dtype != torch.float64 else value  # half floats do not have LARGEST
            fine = (value >= -LARGEST) & (value <= (LARGEST_LOG_SCALE if name == 'log_scales' else LARGEST))
            good &= fine.flatten(1).all(1) if fine.ndim > 1 else fine
        return ~good | (self.quats.abs().amax(-1) == 0 if len(self) else ~good)

    def validate(self, name: str = 'cloud') -> GaussianCloud:
        """Check the values, and return the cloud.

        Args:
            name: Name of the cloud in errors, usually a path.

        Raises:
            ValueError: The cloud is empty, or holds NaN, infinite values, values or extents beyond ``LARGEST``, or
                zero quaternions. The message names the first bad field, counts its Gaussians and gives the index of
                the first.
        """
        if len(self) == 0:
            raise ValueError(f'{name}: holds no Gaussians')

        def check(valid: np.ndarray, problem: str) -> None:
            bad = np.flatnonzero(~valid)
            if len(bad):
                raise ValueError(f'{name}: {problem} in {len(bad)} of {len(self)} Gaussians, the first at index '
                                 f'{bad[0]}; drop them with GaussianCloud.clean()')

        # In numpy, because waking torch's threads costs more than the check; row by row only on failure.
        arrays = {field: (value if value.dtype == torch.float64 else value.float()).detach().cpu().numpy()
                  for field, value in self.fields()}
        for field, array in arrays.items():
            largest = LARGEST_LOG_SCALE if field == 'log_scales' else LARGEST
            if not -LARGEST <= array.min() <= array.max() <= largest:  # False for NaN
                rows = array.reshape(len(self), -1)
                check(np.isfinite(rows).all(1), f'{field} is NaN or infinite')
                check(((rows >= -LARGEST) & (rows <= largest)).all(1), f'{field} is beyond {largest:g}')
        check(arrays['quats'].any(1), 'quats are zero and define no rotation')
        return self

    def clean(self) -> tuple[GaussianCloud, int]:
        """Drop invalid Gaussians, and return the cloud and the number dropped."""
        bad = self.invalid()
        return self[~bad], int(bad.sum())

    # Geometry

    def translate_scale(self, offset: Tensor, factor: float | Tensor) -> GaussianCloud:
        """Move the cloud by ``offset`` (3,), then scale positions and extents by ``factor``.

        Raises:
            ValueError: The factor is not a positive finite number.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f'factor={float(factor)}: expected a positive number; mirror with transform()')
        factor = torch.as_tensor(factor, dtype=self.means.dtype, device=self.device)
        return self.replace(means=(self.means + offset) * factor, log_scales=self.log_scales + factor.log())

    def normalise(self) -> GaussianCloud:
        """Centre the cloud on the mean of the means (summed in float64), and scale it into the unit sphere.

        Extents scale with positions. A cloud of zero radius is only centred.
        """
        if len(self) == 0:
            return self
        centre, radius = self.bounding_sphere()
        log_factor = torch.tensor(1.0 / radius, dtype=torch.float64).log().to(self.log_scales)
        means = (self.means.double() - centre) * (1.0 / radius)
        return self.replace(means=means.to(self.means.dtype), log_scales=self.log_scales + log_factor)

    def bounding_sphere(self) -> tuple[Tensor, float]:
        """Return the mean of the means, (3,) float64, and the largest distance from it, or 1 if all means coincide.

        The cloud needs at least one Gaussian.
        """
        means = self.means.double()
        centre = means.mean(0)
        radius = float((means - centre).norm(dim=-1).max())
        # Rounding can leave a tiny radius although all means coincide.
        return centre, radius if radius > 1e-12 * float(means.abs().max()) else 1.0

    def transform(self, matrix: Tensor, translation: Tensor | None = None) -> GaussianCloud:
        """Apply a similarity: x becomes ``matrix @ x + translation``, and the appearance rotates along.

        Means, extents, orientations and all SH bands change. A reflection is a rotation times the point inversion. The
        inversion does not change covariances, so orientations follow the rotation and stay proper.

        Args:
            matrix: Scale times orthogonal matrix, proper or a reflection, (3, 3).
            translation: Translation, (3,); None is 0.

        Raises:
            ValueError: The matrix is singular, shears, or scales axes differently.
        """
        linear = matrix.detach().to('cpu', torch.float64)
        determinant = float(torch.linalg.det(linear)) if linear.shape == (3, 3) else 0.0
        scale = abs(determinant) ** (1 / 3)
        identity = torch.eye(3, dtype=torch.float64)
        if scale == 0 or not torch.allclose(linear @ linear.T / scale ** 2, identity, atol=1e-4):
            raise ValueError(f'matrix {linear.tolist()} is not a similarity, i.e. a positive scale times an orthogonal '
                             '(3, 3); Gaussians cannot be sheared without changing their scales and rotations apart')
        orthogonal = linear / scale
        turn = matrix_to_quaternion(orthogonal * math.copysign(1.0, determinant)).to(self.quats)
        means = self.means.double() @ linear.to(self.device).T
        if translation is not None:
            means = means + translation.to(means)
        return self.replace(
            means=means.to(self.means.dtype), quats=quaternion_multiply(turn, self.quats),
            log_scales=self.log_scales + math.log(scale), sh=rotate_sh(self.sh, orthogonal))
