"""Random parts of objects, as captures and segmented scenes hold them: cuts, and what some cameras see."""
from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.datasets.transforms.floaters import EXTENT_QUANTILE
from clipgs_plugin.registry import TRANSFORMS

DISTANCE = 3.0           # of the cameras to the middle of the object, in extents
CELLS_PER_POINT = 0.07   # of the grid on which a camera sees the nearest Gaussians, for the Gaussians in its outline
TOLERANCE = 1.5          # depth behind the nearest Gaussian that a camera still sees, in sides of a cell


def unit_vector(rng: np.random.Generator) -> ndarray:
    """Draw a direction, (3,), evenly over the sphere."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _beside_plane(points: ndarray, rng: np.random.Generator) -> ndarray:
    """Return heights along a random direction, (N,)."""
    return points @ unit_vector(rng)


def _out_of_box(points: ndarray, rng: np.random.Generator) -> ndarray:
    """Return distances to a random Gaussian in units of a random box around it, (N,)."""
    middle = points[rng.integers(len(points))]
    return (abs(points - middle) / rng.uniform(0.5, 1, 3)).max(1)


CUTS = {'plane': _beside_plane, 'box': _out_of_box}


@TRANSFORMS.register_module()
class CutGaussians(BaseTransform):
    """Random cut: one side of a plane, or the inside of a box, is what is left of the object.

    A plane has a random direction. A box lies around a random Gaussian, with sides in a random ratio up to 2. Either
    lies where the drawn share of the Gaussians is left; the first Gaussians of equal place are.

    Args:
        probability: Probability per object, in [0, 1].
        share: Least and greatest share of the Gaussians that is left, in (0, 1]; uniform between them.
        cuts: Kinds of cut to draw from, of ``'plane'`` and ``'box'``.
    """

    def __init__(self, probability: float = 0.5, share: tuple[float, float] = (0.3, 0.9),
                 cuts: tuple[str, ...] = ('plane', 'box')) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        if not 0 < share[0] <= share[1] <= 1:
            raise ValueError(f'share={share}: expected 0 < minimum <= maximum <= 1')
        if not cuts or set(cuts) - set(CUTS):
            raise ValueError(f'cuts={cuts}: expected some of {tuple(CUTS)}')
        self.probability, self.share, self.cuts = probability, tuple(share), tuple(cuts)

    def transform(self, results: dict) -> dict:
        rng, cloud = results['rng'], results['gaussians']
        if rng.random() >= self.probability:
            return results
        count = max(1, round(rng.uniform(*self.share) * len(cloud)))
        place = CUTS[self.cuts[rng.integers(len(self.cuts))]](cloud.means.double().numpy(), rng)
        kept = np.sort(np.argsort(place, kind='stable')[:count])
        results['gaussians'] = cloud[torch.from_numpy(kept)]
        return results


@TRANSFORMS.register_module()
class OccludeGaussians(BaseTransform):
    """Occlusion: what no camera sees is lost, be it behind the object itself or behind a ball before it.

    The cameras look at the object from about one direction, at a distance of three extents (an extent is the distance
    from the median position that holds 90 % of the Gaussians). A camera sees the Gaussians that are the nearest in the
    cells of a grid, or hardly behind them. The ball hides what lies behind it from each camera, and nothing of what
    lies before it. Parts thinner than a cell are seen from both sides.

    Args:
        probability: Probability per object, in [0, 1].
        cameras: Least and greatest number of cameras, at least 1; uniform between them.
        spread: Largest angle of a camera to the common direction, in degrees, 0 to 180.
        ball: Least and greatest radius of the ball, in extents, at least 0; uniform between them. Radius 0 is no ball.
        share: Least share of the Gaussians that is left, in (0, 1). Without the ball, or else unchanged, an object of
            which less is seen stays as it is.
    """

    def __init__(self, probability: float = 0.5, cameras: tuple[int, int] = (1, 3), spread: float = 70.0,
                 ball: tuple[float, float] = (0.0, 0.6), share: float = 0.15) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        if not 1 <= cameras[0] <= cameras[1]:
            raise ValueError(f'cameras={cameras}: expected 1 <= minimum <= maximum')
        if not (0 <= spread <= 180 and 0 < share < 1):
            raise ValueError(f'spread={spread}, share={share}: expected degrees in [0, 180] and a share in (0, 1)')
        if not 0 <= ball[0] <= ball[1] < DISTANCE / 2:
            raise ValueError(f'ball={ball}: expected 0 <= minimum <= maximum < {DISTANCE / 2} extents')
        self.probability, self.cameras, self.spread = probability, tuple(cameras), spread
        self.ball, self.share = tuple(ball), share

    def transform(self, results: dict) -> dict:
        rng, cloud = results['rng'], results['gaussians']
        if rng.random() >= self.probability:
            return results
        points = cloud.means.double().numpy()
        points = points - np.median(points, axis=0)
        extent = float(np.quantile(np.linalg.norm(points, axis=1), EXTENT_QUANTILE))
        if extent == 0:
            return results
        points = points / extent
        eyes, center, radius = self._draw(rng)
        seen = np.stack([nearest_from(points, eye) for eye in eyes])
        clear = np.stack([~behind_ball(points, eye, center, radius) for eye in eyes])
        for kept in ((seen & clear).any(0), seen.any(0)):
            if kept.mean() >= self.share:
                results['gaussians'] = cloud[torch.from_numpy(kept)]
                break
        return results

    def _draw(self, rng: np.random.Generator) -> tuple[ndarray, ndarray, float]:
        """Draw cameras (C, 3), and the centre and radius of the ball, in extents."""
        front = unit_vector(rng)
        eyes = []
        for _ in range(rng.integers(self.cameras[0], self.cameras[1] + 1)):
            angle, side = np.radians(self.spread) * np.sqrt(rng.random()), np.cross(front, unit_vector(rng))
            eyes.append(np.cos(angle) * front + np.sin(angle) * side / max(float(np.linalg.norm(side)), 1e-12))
        radius = float(rng.uniform(*self.ball))
        # Before the object, touching a sphere of one extent, and aside by up to one extent.
        aside = np.cross(front, unit_vector(rng))
        return DISTANCE * np.array(eyes), (1 + radius) * front + aside * rng.random(), radius


def nearest_from(
    points: ndarray,  # (N, 3) in extents around the origin
    eye: ndarray,     # (3,)
) -> ndarray:         # (N,) bool
    """Mark the points that are the nearest to a camera in their cell of its image, or hardly behind the nearest."""
    distance = float(np.linalg.norm(eye))
    axis = -eye / distance
    across = np.linalg.svd(axis[None])[2][1:]
    depth = (points - eye) @ axis
    flat = points @ across.T * (distance / np.maximum(depth, 0.1 * distance))[:, None]  # pixels in extents
    low, high = np.quantile(flat, [0.01, 0.99], axis=0)
    side = float(np.sqrt(max(np.prod(high - low), 1e-12) / (CELLS_PER_POINT * len(points))))
    cells = np.clip(np.floor((flat - low) / side), -2 ** 20, 2 ** 20).astype(np.int64)
    _, cell = np.unique(cells @ np.array([2 ** 22, 1]), return_inverse=True)
    nearest = np.full(cell.max() + 1, np.inf)
    np.minimum.at(nearest, cell.reshape(-1), depth)
    return depth <= nearest[cell.reshape(-1)] + TOLERANCE * side


def behind_ball(
    points: ndarray,  # (N, 3)
    eye: ndarray,     # (3,)
    center: ndarray,  # (3,)
    radius: float,
) -> ndarray:         # (N,) bool
    """Mark the points whose segment to a camera meets a ball."""
    ways = points - eye
    along = np.clip(ways @ (center - eye) / np.maximum((ways ** 2).sum(1), 1e-12), 0, 1)
    return np.linalg.norm(eye + along[:, None] * ways - center, axis=1) < radius
