"""Where an object is, how large, and which way it turns."""
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
    """Centres an object on the mean of its means and scales it into the unit sphere, extents included."""

    def transform(self, results: dict) -> dict:
        results['gaussians'] = results['gaussians'].normalise()
        return results


@TRANSFORMS.register_module()
class RotateGaussians(BaseTransform):
    """Turns an object by a random angle; positions, orientations and SH turn together.

    Args:
        axis: ``'x'``, ``'y'``, ``'z'``, or ``'any'`` for an axis uniform on the sphere.
        max_angle: The angle is uniform in [-max_angle, max_angle], in degrees. ``axis='any'`` with 180 draws from
            the uniform distribution over all rotations instead.
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
        """A random rotation matrix, (3, 3) float64."""
        if self.axis == 'any':
            quat = rng.normal(size=4)  # a direction in 4D is a uniform rotation
            if self.max_angle == 180:
                return quaternion_to_matrix(torch.from_numpy(quat))
            axis = quat[1:] / np.linalg.norm(quat[1:])
        else:
            axis = axis_vector(self.axis).numpy()
        half = math.radians(rng.uniform(-self.max_angle, self.max_angle)) / 2
        return quaternion_to_matrix(torch.from_numpy(np.concatenate([[math.cos(half)], math.sin(half) * axis])))


@TRANSFORMS.register_module()
class ScaleGaussians(BaseTransform):
    """Scales an object about the origin by a random factor, extents included.

    Args:
        low: Smallest factor, > 0.
        high: Largest factor; the logarithm of the factor is uniform.
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
    """Moves each Gaussian by normal noise, cut at ``clip``.

    Args:
        sigma: Standard deviation per coordinate, in the unit of the positions.
        clip: Largest move per coordinate.
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
    """Brings the up axis of the files to the one a model wants.

    Turns by the smallest rotation from ``source`` to ``target``. With ``swap=True`` the two axes are exchanged
    instead, which is how OpenShape's z-up models were given y-up data: a reflection, so the object is mirrored;
    orientations stay proper rotations and covariances are reflected exactly.

    Args:
        source: Up in the files: ``'x'``, ``'y'``, ``'z'`` or one of them with a minus (COLMAP scenes are ``'-y'``).
        target: Up afterwards.
        swap: Exchange the axes instead of turning; both must be without a minus and different.
    """

    def __init__(self, source: str = 'z', target: str = 'y', swap: bool = False) -> None:
        for name, axis in (('source', source), ('target', target)):
            if axis not in AXES:
                raise ValueError(f'{name}={axis!r}: expected one of {AXES}')
        if swap and (source == target or '-' in source + target):
            raise ValueError(f'source={source!r}, target={target!r}: swap=True exchanges two of x, y and z')
        self.source = source
        self.target = target
        self.swap = swap
        self._matrix = up_matrix(source, target, swap)

    def transform(self, results: dict) -> dict:
        if self.source != self.target:
            results['gaussians'] = results['gaussians'].transform(self._matrix)
        return results


def up_matrix(source: str, target: str, swap: bool = False) -> Tensor:
    """The matrix that :class:`ChangeUp` applies to column vectors, (3, 3) float64."""
    if not swap:
        return axis_change(source, target)
    between = axis_vector(source) - axis_vector(target)
    return torch.eye(3, dtype=torch.float64) - torch.outer(between, between)  # reflection in the plane between the two
