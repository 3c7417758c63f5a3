"""Tones and wears: the looks of categories of appearance.

A tone maps colours (n, 3) to colours. A wear also depends on points in the unit sphere and on normals.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.appearances.base import mix, smooth_noise


def _grade(gain: float, saturation: float, lift: float = 0.0) -> Callable[[ndarray], ndarray]:
    def grade(rgb: ndarray) -> ndarray:
        grey = rgb.mean(1, keepdims=True)
        return np.clip(lift + gain * (grey + saturation * (rgb - grey)), 0, 1)
    return grade


TONES = {'natural': _grade(1.0, 1.0), 'bright': _grade(1.12, 1.25, 0.04), 'dark': _grade(0.55, 1.0),
         'pale': _grade(0.55, 0.9, 0.42), 'faded': _grade(0.85, 0.4, 0.06)}


def _clean(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    return rgb


def _dusty(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(0.1 + 0.7 * normals[:, 1] + 0.5 * smooth_noise(rng, 3)(points), 0, 0.6)
    return mix(rgb, (0.72, 0.69, 0.63), share)


def _muddy(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(6 * (-0.35 - points[:, 1] + 0.8 * smooth_noise(rng, 4)(points)), 0, 0.92)
    return mix(rgb, (0.30, 0.21, 0.13), share)


def _speckled(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    spots, radii = rng.uniform(-1, 1, (110, 3)), rng.uniform(0.08, 0.15, 110)
    share = ((points ** 2).sum(1)[:, None] + (spots ** 2).sum(1) - 2 * points @ spots.T < radii ** 2).any(1)
    return mix(rgb, (0.97, 0.97, 0.96), share)


WEARS = {'clean': _clean, 'dusty': _dusty, 'muddy': _muddy, 'speckled': _speckled}
