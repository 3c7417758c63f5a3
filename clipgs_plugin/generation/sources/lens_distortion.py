"""Lens distortion, and its removal from images.

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

# Parameters of COLMAP's camera models in their order; ``f`` is the focal length of both axes.
CAMERA_MODELS = {
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
UNDISTORT_REMEDY = 'undistort the images first (colmap image_undistorter) and use the cameras that it writes'
_MIN_SCALE, _MAX_SCALE = 0.5, 4.0
_NODES = 65  # per side of the grid on which a scale is tested


class Lens(NamedTuple):
    """Distortion of the pinhole coordinates (x / z, y / z) of a point.

    The perspective model is the rational one of OpenCV, which contains the models with fewer coefficients. With r the
    distance from the axis,

    .. math:: x' = x \\frac{1 + k_1 r^2 + k_2 r^4 + k_3 r^6}{1 + k_4 r^2 + k_5 r^4 + k_6 r^6}
              + 2 p_1 x y + p_2 (r^2 + 2 x^2)

    and likewise for y with p1 and p2 exchanged. The fisheye model replaces r by the angle from the axis,
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
    def from_coefficients(cls, numbers: Mapping[str, float], fisheye: bool = False) -> Lens | None:
        """Make a lens of named coefficients, ignoring other names; None for a pinhole camera."""
        coefficients = {name: float(numbers[name]) for name in cls._fields[1:] if numbers.get(name)}
        return cls(fisheye, **coefficients) if coefficients or fisheye else None

    def distort(self, x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
        """Map pinhole coordinates (...), in focal lengths from the axis, to the image of the lens."""
        square = x * x + y * y
        if self.fisheye:
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            a = angle * angle
            distorted = angle * (1 + a * (self.k1 + a * (self.k2 + a * (self.k3 + a * self.k4))))
            scale = np.divide(distorted, radius, out=np.ones_like(radius), where=radius > 1e-8)
            return x * scale, y * scale
        scale = 1 + square * (self.k1 + square * (self.k2 + square * self.k3))
        scale = scale / (1 + square * (self.k4 + square * (self.k5 + square * self.k6)))
        return (x * scale + 2 * self.p1 * x * y + self.p2 * (square + 2 * x * x),
                y * scale + self.p1 * (square + 2 * y * y) + 2 * self.p2 * x * y)


def focal_scale(lens: Lens, intrinsics: ndarray, size: tuple[int, int]) -> float:
    """Find the smallest factor of the focal lengths at which the lens saw every pixel of the pinhole image.

    Unseen pixels would be taken for background. The pinhole keeps the principal point and the size of the image.

    Args:
        lens: Lens of the image.
        intrinsics: Matrix of the image, (3, 3), pixels, the first pixel's centre at (0.5, 0.5).
        size: Width and height of the image.

    Returns:
        A factor in [0.5, 4]; a fisheye lens may see more than an image can show.

    Raises:
        ValueError: The distortion folds the image even at a quarter of the field of view.
    """
    focal, center = np.diag(intrinsics)[:2].astype(np.float64), intrinsics[:2, 2].astype(np.float64)
    nodes = [np.linspace(-center[axis], size[axis] - center[axis], _NODES) / focal[axis] for axis in (0, 1)]
    x, y = np.meshgrid(*nodes)

    def sees_all(factor: float) -> bool:
        with np.errstate(all='ignore'):
            columns, rows = lens.distort(x / factor, y / factor)
            # Beyond its range of validity a polynomial folds back.
            fold = np.gradient(columns, axis=1) * np.gradient(rows, axis=0)
            fold = fold - np.gradient(columns, axis=0) * np.gradient(rows, axis=1)
            columns, rows = columns * focal[0] + center[0], rows * focal[1] + center[1]
            return bool((fold > 0).all() and (columns >= 0).all() and (columns <= size[0]).all()
                        and (rows >= 0).all() and (rows <= size[1]).all())

    low, high = _MIN_SCALE, _MAX_SCALE
    if not sees_all(high):
        raise ValueError(f'{lens} folds an image of {size[0]} x {size[1]} pixels, focal lengths {focal[0]:g} and '
                         f'{focal[1]:g}, over itself; its distortion coefficients are wrong')
    if sees_all(low):
        return low
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if sees_all(middle) else (middle, high)
    return high


def undistort(pixels: ndarray, lens: Lens, intrinsics: ndarray) -> tuple[ndarray, ndarray]:
    """Resample an image as a pinhole camera would have taken it, by bilinear interpolation.

    Args:
        pixels: sRGB, not premultiplied, and alpha, (h, w, 4) float32; colours are weighted by alpha.
        lens: Lens of the image.
        intrinsics: Matrix of the image, (3, 3), pixels, the first pixel's centre at (0.5, 0.5).

    Returns:
        The image, (h, w, 4) float32, and the matrix of its pinhole camera: the same principal point, and the focal
        lengths times :func:`focal_scale`.

    Raises:
        ValueError: The distortion folds the image over itself.
    """
    height, width = pixels.shape[:2]
    pinhole = np.array(intrinsics, np.float64)
    grid, factor = _sampling_grid(lens, tuple(pinhole[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()), width, height)
    pinhole[[0, 1], [0, 1]] *= factor
    alpha = pixels[..., 3:]
    planes = torch.from_numpy(np.concatenate([pixels[..., :3] * alpha, alpha], -1)).permute(2, 0, 1)[None]
    sampled = torch.nn.functional.grid_sample(planes, grid, mode='bilinear', padding_mode='border',
                                              align_corners=False)[0].permute(1, 2, 0).numpy().clip(0, 1)
    colors, alpha = sampled[..., :3], sampled[..., 3:]
    colors = np.divide(colors, alpha, out=np.zeros_like(colors), where=alpha > 0).clip(0, 1)
    return np.concatenate([colors, alpha], -1), pinhole


@lru_cache(maxsize=2)
def _sampling_grid(lens: Lens, pinhole: tuple[float, ...], width: int, height: int) -> tuple[torch.Tensor, float]:
    """Return the source of each pixel, (1, h, w, 2) in [-1, 1], and the focal scale; images of a camera share them."""
    fx, fy, cx, cy = pinhole
    factor = focal_scale(lens, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (width, height))
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / (fx * factor), (np.arange(height) + 0.5 - cy) / (fy * factor))
    columns, rows = lens.distort(x, y)
    grid = np.stack([2 * (columns * fx + cx) / width - 1, 2 * (rows * fy + cy) / height - 1], -1)
    return torch.from_numpy(grid.astype(np.float32))[None], factor
