"""Camera poses of rendered objects."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin import ops
from clipgs_plugin.generation.fields import check_fields
from clipgs_plugin.ops.cameras import sphere_directions


@dataclass(frozen=True)
class ViewRule:
    """Cameras on a sphere around the origin, which look at it with y up; the same for every object.

    The training cameras lie on a Fibonacci spiral from the top down (:func:`clipgs_plugin.ops.sphere_cameras`). The
    held-out cameras lie on a second spiral. It is turned about y by the whole number of degrees that keeps it farthest
    from the first, so no camera is in both. An object in the unit sphere fits into the image if
    ``distance * sin(fov / 2) >= 1``; at the defaults 3 sin 20° = 1.03.

    Args:
        num_views: Number of training views, which are also the views of the triplet.
        num_test: Number of held-out views, which measure the quality of a fit.
        size: Width and height of the images in pixels.
        fov_degrees: Field of view in degrees.
        distance: Radius of the sphere of cameras.
        background: Background of the stored and fitted images, sRGB in [0, 1].
        keep_test: Store the held-out views as well, behind the training views. They are pictures that no fit was
            trained on, for example queries of retrieval.

    Raises:
        ValueError: A value is out of range.
    """

    num_views: int = 36
    num_test: int = 12
    size: int = 128
    fov_degrees: float = 40.0
    distance: float = 3.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    keep_test: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_views < 1 or self.num_test < 0 or self.size < 1:
            raise ValueError(f'num_views={self.num_views}, num_test={self.num_test}, size={self.size}: expected at '
                             'least 1, 0 and 1')
        if not isinstance(self.keep_test, bool):
            raise ValueError(f'keep_test={self.keep_test!r}: expected True or False')
        if not 0 < self.fov_degrees < 180:
            raise ValueError(f'fov_degrees={self.fov_degrees}: expected an angle between 0 and 180 degrees')
        if not self.distance > 1:
            raise ValueError(f'distance={self.distance}: expected more than 1, the radius of the objects')
        try:
            background = tuple(float(value) for value in self.background)
        except (TypeError, ValueError):
            background = ()
        if len(background) != 3 or not all(0 <= value <= 1 for value in background):
            raise ValueError(f'background={self.background}: expected three numbers in [0, 1]')
        object.__setattr__(self, 'background', background)  # a config has a list

    def train_cameras(self) -> ndarray:
        """World to camera, OpenCV axes, (num_views, 4, 4) float32."""
        return ops.sphere_cameras(self.num_views, self.distance).numpy()

    def test_cameras(self) -> ndarray:
        """World to camera, OpenCV axes, (num_test, 4, 4) float32."""
        if self.num_test == 0:
            return np.zeros((0, 4, 4), np.float32)
        eyes = self.distance * sphere_directions(self.num_test, turn=self._turn())
        return ops.look_at(eyes.float()).numpy()

    def stored_cameras(self) -> ndarray:
        """Return the cameras of the stored views, (V, 4, 4) float32; the training views come first."""
        return np.concatenate([self.train_cameras(), self.test_cameras()]) if self.keep_test else self.train_cameras()

    def _turn(self) -> float:
        """Rotation of the held-out spiral about y, in radians."""
        train = sphere_directions(self.num_views)
        closest = torch.stack([(train @ sphere_directions(self.num_test, turn=math.radians(angle)).T).max()
                               for angle in range(360)])
        return math.radians(int(closest.round(decimals=9).argmin()))  # rounded, so every machine chooses the same

    def intrinsics(self) -> ndarray:
        """Return the intrinsics of every view in pixels, (3, 3) float32."""
        return ops.intrinsics(self.fov_degrees, self.size, self.size).numpy()

    def to_dict(self) -> dict:
        """Return the rule as JSON; ``ViewRule(**rule.to_dict())`` is an equal rule."""
        return {**asdict(self), 'background': list(self.background)}
