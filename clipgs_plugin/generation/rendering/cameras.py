"""Where the cameras of an object's pictures stand."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy import ndarray

from clipgs_plugin import ops

_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class ViewRule:
    """Cameras on a sphere around the origin, which they look at with y up; the same for every object.

    The views for training lie on a Fibonacci spiral from the top down (:func:`clipgs_plugin.ops.sphere_cameras`). The
    held-out ones lie on a spiral of their own, turned about y by the whole number of degrees that keeps them farthest
    from the others, so no camera is in both. An object in the unit sphere fits into the picture if
    ``distance * sin(fov / 2) >= 1``; at the defaults 3 sin 20° = 1.03.

    Args:
        num_views: Views for training and for the triplet.
        num_test: Held-out views, on which fits are judged.
        size: Width and height in pixels.
        fov_degrees: Angle across the picture.
        distance: Radius of the cameras' sphere.
        background: sRGB in [0, 1] on which pictures are stored and fitted.

    Raises:
        ValueError: A value out of its range.
    """

    num_views: int = 36
    num_test: int = 12
    size: int = 128
    fov_degrees: float = 40.0
    distance: float = 3.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.num_test < 0 or self.size < 1:
            raise ValueError(f'num_views={self.num_views}, num_test={self.num_test}, size={self.size}: expected at '
                             'least 1, 0 and 1')
        if not 0 < self.fov_degrees < 180:
            raise ValueError(f'fov_degrees={self.fov_degrees}: expected an angle between 0 and 180 degrees')
        if not self.distance > 1:
            raise ValueError(f'distance={self.distance}: expected more than 1, the radius of the objects')
        background = tuple(float(value) for value in self.background)
        if len(background) != 3 or not all(0 <= value <= 1 for value in background):
            raise ValueError(f'background={self.background}: expected three numbers in [0, 1]')
        object.__setattr__(self, 'background', background)  # a config's list becomes a tuple

    def train_cameras(self) -> ndarray:
        """World to camera, OpenCV axes, (num_views, 4, 4) float32."""
        return ops.sphere_cameras(self.num_views, self.distance).numpy()

    def test_cameras(self) -> ndarray:
        """World to camera, OpenCV axes, (num_test, 4, 4) float32; none of the training cameras."""
        if self.num_test == 0:
            return np.zeros((0, 4, 4), np.float32)
        eyes = self.distance * _turned_spiral(self.num_test, self._turn())
        return ops.look_at(eyes.tolist()).numpy()

    def _turn(self) -> float:
        """Angle in rad by which the held-out spiral is turned."""
        train = _turned_spiral(self.num_views, 0.0)
        closest = [(train @ _turned_spiral(self.num_test, math.radians(angle)).T).max() for angle in range(360)]
        return math.radians(int(np.round(closest, 9).argmin()))  # rounded, so that every machine takes the same

    def intrinsics(self) -> ndarray:
        """Of every view, (3, 3) float32 in pixels."""
        return ops.intrinsics(self.fov_degrees, self.size, self.size).numpy()

    def to_dict(self) -> dict:
        """The rule for ``dataset.json``; ``ViewRule(**rule)`` is the same again."""
        return {**asdict(self), 'background': list(self.background)}


def _turned_spiral(count: int, turn: float) -> ndarray:
    """Unit vectors on a Fibonacci spiral about y from the top down, its azimuth from z shifted by ``turn``, (n, 3)."""
    index = np.arange(count)
    height = 1 - (2 * index + 1) / count
    ring, azimuth = np.sqrt(1 - height ** 2), index * _GOLDEN_ANGLE + turn
    return np.stack([ring * np.sin(azimuth), height, ring * np.cos(azimuth)], axis=1)
