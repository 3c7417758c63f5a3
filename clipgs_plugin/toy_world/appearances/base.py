"""Shared parts of appearances: groups of categories, and functions for painters."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.categories import Category, Vary
from clipgs_plugin.toy_world.solids import Part, Surface

Painter = Callable[[Surface], ndarray]
WHITE, BLACK = (0.95, 0.95, 0.94), (0.08, 0.08, 0.09)


class Group(dict[str, Category]):
    """Categories of one shape by name; only their surfaces differ.

    Args:
        name: Name of the group.
        shape: Function that draws a random shape.
    """

    def __init__(self, name: str, shape: Callable[[Vary], Part]) -> None:
        super().__init__()
        self.name, self.shape = name, shape

    def register(self, paint: Callable[[Vary], Painter]) -> Callable[[Vary], Painter]:
        """Add a category named after ``paint``, a function that draws a random painter."""
        name = paint.__name__.replace('_', ' ')
        self[name] = Category(name, lambda v: [self.shape(v).paint(paint(v))], self.name)
        return paint


def over(rgb: ndarray, colour: tuple, where: ndarray) -> ndarray:
    """Return ``rgb`` (n, 3) with ``colour`` where the mask ``where`` (n,) is True."""
    return np.where(where[:, None], np.asarray(colour), rgb)


def plain(surface: Surface, colour: tuple) -> ndarray:
    """Return one colour for all points of a surface, (n, 3)."""
    return np.tile(np.asarray(colour, dtype=float), (len(surface.points), 1))


def mix(base: ndarray | tuple, top: tuple, share: ndarray) -> ndarray:
    """Blend from ``base`` where the share (n,) is 0 to ``top`` where it is 1, (n, 3)."""
    share = np.asarray(share, dtype=float)[:, None]
    return np.asarray(base) * (1 - share) + np.asarray(top) * share


def smooth_noise(rng: np.random.Generator, frequency: float) -> Callable[[ndarray], ndarray]:
    """Return a smooth function of points (n, 3) with values (n,) around 0: the mean of eight random waves."""
    waves, phases = rng.normal(size=(3, 8)) * frequency, rng.uniform(0, 2 * math.pi, 8)
    return lambda points: np.sin(points @ waves + phases).mean(1)
