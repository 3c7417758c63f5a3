"""Transforms of position, size and orientation."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.ops.rotations import AXES, axis_change, axis_vector, quaternion_to_matrix
from clipgs_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class NormaliseGaussians(BaseTransform):
    """Normalisation: centres an object on its mean position and scales it, with its extents, into the unit sphere."""

    def transform(self, results: dict) -> dict:
        results['gaussians'] = results['gaussians'].normalise()
        return results


@TRANSFORMS.register_module()
class RotateGaussians(BaseTransform):
    """Random rotation of positions, orientations and SH.

    Args:
        axis: Rotation axis ``'x'``, ``'y'`` or ``'z'``, or ``'any'`` for an axis uniform on the sphere.
        max_angle: Maximum angle in degrees; the angle is uniform in [-max_angle, max_angle]. ``axis='any'`` with 180
            samples the uniform distribution over all rotations instead.
    """

    def __init__(self, axis: str = 'y', max_angle: float = 180.0) -> None:
        if axis not in ('x', 'y', 'z', 'any'):
            raise ValueError(f"axis={axis!r}: expected 'x', 'y', 'z' or 'any'")
        if not 0 <= max_angle <= 180:
            raise ValueError(f'max_angle={max_angle}: expected degrees in [0, 180]')
        self.axis = axis
        self.max_angle = max_angle

    def transform(self, results: dict) -> dict:
        results['gaussians'] = results['gaussians'].transform(self._rotation(results['rng']))
        return results

    def _rotation(self, rng: np.random.Generator) -> Tensor:
        """Sample a rotation matrix, (3, 3) float64."""
        if self.axis == 'any':
            quat = rng.normal(size=4)  # a uniform direction in 4D is a uniform rotation
            if self.max_angle == 180:
                return quaternion_to_matrix(torch.from_numpy(quat))
            axis = quat[1:] / np.linalg.norm(quat[1:])
        else:
            axis = axis_vector(self.axis).numpy()
        half = math.radians(rng.uniform(-self.max_angle, self.max_angle)) / 2
        return quaternion_to_matrix(torch.from_numpy(np.concatenate([[math.cos(half)], math.sin(half) * axis])))


@TRANSFORMS.register_module()
class ScaleGaussians(BaseTransform):
    """Random scaling about the origin, extents included; the logarithm of the factor is uniform.

    Args:
        low: Minimum factor, greater than 0.
        high: Maximum factor.
    """

    def __init__(self, low: float = 0.8, high: float = 1.25) -> None:
        if not 0 < low <= high:
            raise ValueError(f'low={low}, high={high}: expected 0 < low <= high')
        self.low = low
        self.high = high

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        factor = math.exp(results['rng'].uniform(math.log(self.low), math.log(self.high)))
        results['gaussians'] = cloud.translate_scale(cloud.means.new_zeros(3), factor)
        return results


@TRANSFORMS.register_module()
class JitterGaussians(BaseTransform):
    """Jitter: adds clipped normal noise to the position of each Gaussian.

    Args:
        sigma: Standard deviation per coordinate, in the unit of the positions.
        clip: Maximum displacement per coordinate.
    """

    def __init__(self, sigma: float = 0.01, clip: float = 0.05) -> None:
        if sigma < 0 or clip < 0:
            raise ValueError(f'sigma={sigma}, clip={clip}: expected both at least 0')
        self.sigma = sigma
        self.clip = clip

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        noise = results['rng'].normal(scale=self.sigma, size=cloud.means.shape).clip(-self.clip, self.clip)
        results['gaussians'] = cloud.replace(means=cloud.means + torch.from_numpy(noise).to(cloud.means))
        return results


@TRANSFORMS.register_module()
class ChangeUp(BaseTransform):
    """Change of the up axis, by the smallest rotation from ``source`` to ``target``.

    With ``swap=True`` the two axes are exchanged instead, as OpenShape did with y-up data for its z-up models. The
    exchange is a reflection, so the object is mirrored. Orientations stay proper rotations and covariances are
    reflected exactly.

    Args:
        source: Up axis of the files: ``'x'``, ``'y'`` or ``'z'``, optionally with a minus (``'-y'`` in COLMAP scenes).
        target: Up axis that the model expects.
        swap: Exchange the axes instead of rotating. The axes must differ and have no minus.
    """

    def __init__(self, source: str = 'z', target: str = 'y', swap: bool = False) -> None:
        for name, axis in (('source', source), ('target', target)):
            if axis not in AXES:
                raise ValueError(f'{name}={axis!r}: expected one of {AXES}')
        if swap and (source == target or '-' in source + target):
            raise ValueError(f'source={source!r}, target={target!r}: expected two different axes of x, y and z '
                             'for swap=True')
        self.source = source
        self.target = target
        self.swap = swap
        self._matrix = up_matrix(source, target, swap)

    def transform(self, results: dict) -> dict:
        if self.source != self.target:
            results['gaussians'] = results['gaussians'].transform(self._matrix)
        return results


def up_matrix(source: str, target: str, swap: bool = False) -> Tensor:
    """Return the matrix that :class:`ChangeUp` applies to column vectors, (3, 3) float64."""
    if not swap:
        return axis_change(source, target)
    normal = axis_vector(source) - axis_vector(target)  # of length sqrt(2), hence no factor 2 in the reflection
    return torch.eye(3, dtype=torch.float64) - torch.outer(normal, normal)
