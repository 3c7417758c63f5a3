"""Categories of one shape each group, which only their surface tells apart, and what time does to them."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray

from clipgs_plugin.datasets.toy_world.categories import Category, Vary
from clipgs_plugin.datasets.toy_world.solids import Box, Ellipsoid, Part, Surface, cylinder

APPEARANCES: dict[str, Category] = {}
Painter = Callable[[Surface], ndarray]


def mix(base: tuple, over: tuple, share: ndarray) -> ndarray:
    """``over`` where the share is 1, ``base`` where it is 0, (n, 3)."""
    share = np.asarray(share, dtype=float)[:, None]
    return np.asarray(base) * (1 - share) + np.asarray(over) * share


# Tones and wears: the looks of these categories. Tones act on colours; wears on colours, by normals and places in the
# unit sphere.

def _grade(gain: float, saturation: float, lift: float = 0.0) -> Callable[[ndarray], ndarray]:
    def grade(rgb: ndarray) -> ndarray:
        grey = rgb.mean(1, keepdims=True)
        return np.clip(lift + gain * (grey + saturation * (rgb - grey)), 0, 1)
    return grade


TONES = {'natural': _grade(1.0, 1.0), 'bright': _grade(1.12, 1.25, 0.04), 'dark': _grade(0.55, 1.0),
         'pale': _grade(0.55, 0.9, 0.42), 'faded': _grade(0.85, 0.4, 0.06)}


def _noise(points: ndarray, rng: np.random.Generator, frequency: float) -> ndarray:
    """Smooth values around 0, (n,): a few random waves."""
    waves = rng.normal(size=(3, 8)) * frequency
    return np.sin(points @ waves + rng.uniform(0, 2 * math.pi, 8)).mean(1)


def _clean(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    return rgb


def _dusty(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(0.1 + 0.9 * normals[:, 1] + 0.5 * _noise(points, rng, 3), 0, 0.8)
    return mix(rgb, (0.72, 0.69, 0.63), share)


def _muddy(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(6 * (-0.35 - points[:, 1] + 0.8 * _noise(points, rng, 4)), 0, 0.92)
    return mix(rgb, (0.30, 0.21, 0.13), share)


def _speckled(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    spots = rng.normal(size=(26, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    directions = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    share = (directions @ spots.T > np.cos(rng.uniform(0.06, 0.13, 26))).any(1)
    return mix(rgb, (0.97, 0.97, 0.96), share)


WEARS = {'clean': _clean, 'dusty': _dusty, 'muddy': _muddy, 'speckled': _speckled}
