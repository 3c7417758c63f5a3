"""Pictures of a lens that bends straight lines, made into pictures of a pinhole.

Sources: Brown, "Close-range camera calibration", 1971; Kannala and Brandt, "A generic camera model and calibration
method for conventional, wide-angle, and fish-eye lenses", 2006; in the form that OpenCV and COLMAP give them.
"""
from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

# What the numbers of COLMAP's camera models are, in their order; ``f`` is of both axes.
PARAMETERS = {
    'SIMPLE_PINHOLE': ('f', 'cx', 'cy'),
    'PINHOLE': ('fx', 'fy', 'cx', 'cy'),
    'SIMPLE_RADIAL': ('f', 'cx', 'cy', 'k1'),
    'RADIAL': ('f', 'cx', 'cy', 'k1', 'k2'),
    'OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2'),
    'OPENCV_FISHEYE': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'k3', 'k4'),
    'FULL_OPENCV': ('fx', 'fy', 'cx', 'cy', 'k1', 'k2', 'p1', 'p2', 'k3', 'k4', 'k5', 'k6'),
    'SIMPLE_RADIAL_FISHEYE': ('f', 'cx', 'cy', 'k1'),
    'RADIAL_FISHEYE': ('f', 'cx', 'cy', 'k1', 'k2'),
}
_COEFFICIENTS = ('k1', 'k2', 'p1', 'p2', 'k3', 'k4', 'k5', 'k6')
_LEAST_ZOOM, _MOST_ZOOM = 0.5, 4.0
_NODES = 65  # along a side of the grid on which a zoom is tried


class Lens(NamedTuple):
    """How a lens moves the places that a pinhole would show, which are x / z and y / z of a point.

    The perspective lens is OpenCV's rational one, of which those of fewer numbers are cases; with r the distance
    from the axis,

    .. math:: x' = x \\frac{1 + k_1 r^2 + k_2 r^4 + k_3 r^6}{1 + k_4 r^2 + k_5 r^4 + k_6 r^6}
              + 2 p_1 x y + p_2 (r^2 + 2 x^2)

    and alike for y with p1 and p2 exchanged. The fisheye turns r into the angle from the axis,
    :math:`x' = x \\, \\theta (1 + k_1 \\theta^2 + k_2 \\theta^4 + k_3 \\theta^6 + k_4 \\theta^8) / r`.
    """

    fisheye: bool
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0

    @classmethod
    def of(cls, numbers: Mapping[str, float], fisheye: bool = False) -> Lens | None:
        """The lens of coefficients by their names, others passed over; None where it is a pinhole."""
        coefficients = {name: float(numbers[name]) for name in _COEFFICIENTS if numbers.get(name)}
        return cls(fisheye, **coefficients) if coefficients or fisheye else None

    def distorted(self, x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
        """Where places (...) of a pinhole, in focal lengths from the axis, are in the picture of the lens."""
        square = x * x + y * y
        if self.fisheye:
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            a = angle * angle
            bent = angle * (1 + a * (self.k1 + a * (self.k2 + a * (self.k3 + a * self.k4))))
            scale = np.divide(bent, radius, out=np.ones_like(radius), where=radius > 1e-8)
            return x * scale, y * scale
        scale = 1 + square * (self.k1 + square * (self.k2 + square * self.k3))
        scale = scale / (1 + square * (self.k4 + square * (self.k5 + square * self.k6)))
        return (x * scale + 2 * self.p1 * x * y + self.p2 * (square + 2 * x * x),
                y * scale + self.p1 * (square + 2 * y * y) + 2 * self.p2 * x * y)


def zoom(lens: Lens, intrinsics: ndarray, size: tuple[int, int]) -> float:
    """The factor of the focal lengths at which a pinhole sees as much as it can, and nothing that the lens did not.

    Every pixel then has a colour: one that the lens never saw would be taken for background. The pinhole keeps the
    principal point and the size of the picture.

    Args:
        lens: Of the picture.
        intrinsics: Its matrix, (3, 3), pixels, the first pixel's centre at (0.5, 0.5).
        size: Its width and height.

    Returns:
        From 0.5, as a fisheye sees more than a picture can hold, to 4.

    Raises:
        ValueError: The lens folds the picture even within a quarter of it, so its numbers are wrong.
    """
    focal, centre = np.diag(intrinsics)[:2].astype(np.float64), intrinsics[:2, 2].astype(np.float64)
    nodes = [np.linspace(-centre[axis], size[axis] - centre[axis], _NODES) / focal[axis] for axis in (0, 1)]
    x, y = np.meshgrid(*nodes)

    def seen(factor: float) -> bool:
        with np.errstate(all='ignore'):
            columns, rows = lens.distorted(x / factor, y / factor)
            # A polynomial turns back where it no longer describes its lens.
            fold = np.gradient(columns, axis=1) * np.gradient(rows, axis=0)
            fold = fold - np.gradient(columns, axis=0) * np.gradient(rows, axis=1)
            columns, rows = columns * focal[0] + centre[0], rows * focal[1] + centre[1]
            return bool((fold > 0).all() and (columns >= 0).all() and (columns <= size[0]).all()
                        and (rows >= 0).all() and (rows <= size[1]).all())

    low, high = _LEAST_ZOOM, _MOST_ZOOM
    if not seen(high):
        raise ValueError(f'{lens} bends a picture of {size[0]} x {size[1]} pixels, focal lengths {focal[0]:g} and '
                         f'{focal[1]:g}, over itself; the numbers of its distortion are wrong')
    if seen(low):
        return low
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high


def undistorted(pixels: ndarray, lens: Lens, intrinsics: ndarray) -> tuple[ndarray, ndarray]:
    """A picture as a pinhole would have taken it, by bilinear interpolation.

    Args:
        pixels: sRGB, not premultiplied, and alpha, (h, w, 4) float32; colours count by their alpha.
        lens: Of the picture.
        intrinsics: Its matrix, (3, 3), pixels, the first pixel's centre at (0.5, 0.5).

    Returns:
        The picture, (h, w, 4) float32, all of it seen by the lens; and the matrix of its pinhole, of the same
        principal point, the focal lengths times :func:`zoom`.
    """
    height, width = pixels.shape[:2]
    pinhole = np.array(intrinsics, np.float64)
    places, factor = _places(lens, tuple(pinhole[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()), width, height)
    pinhole[[0, 1], [0, 1]] *= factor
    alpha = pixels[..., 3:]
    planes = torch.from_numpy(np.concatenate([pixels[..., :3] * alpha, alpha], -1)).permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(planes, places, mode='bilinear', padding_mode='border',
                                            align_corners=False)[0].permute(1, 2, 0).numpy().clip(0, 1)
    colors, alpha = found[..., :3], found[..., 3:]
    colors = np.divide(colors, alpha, out=np.zeros_like(colors), where=alpha > 0).clip(0, 1)
    return np.concatenate([colors, alpha], -1), pinhole


@lru_cache(maxsize=2)
def _places(lens: Lens, numbers: tuple[float, ...], width: int, height: int) -> tuple[torch.Tensor, float]:
    """Where each pixel is taken from, (1, h, w, 2) in [-1, 1], and the zoom; those of one camera share them."""
    fx, fy, cx, cy = numbers
    factor = zoom(lens, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (width, height))
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / (fx * factor), (np.arange(height) + 0.5 - cy) / (fy * factor))
    columns, rows = lens.distorted(x, y)
    places = np.stack([2 * (columns * fx + cx) / width - 1, 2 * (rows * fy + cy) / height - 1], -1)
    return torch.from_numpy(places.astype(np.float32))[None], factor
