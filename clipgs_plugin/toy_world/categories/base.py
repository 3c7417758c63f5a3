"""Shared parts of categories.

Convention: y is up, the object faces +z, and its height is about 1. Parts painted ``'main'`` take the object's colour
and pattern. Other names are materials, and painters compute colours themselves. A detail on a surface stands out of it
by at least 0.01, because a surface inside another part is hidden.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clipgs_plugin.toy_world.solids import Part

Choice = TypeVar('Choice')


class Vary:
    """Random source of an object's proportions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pick(self, *options: Choice) -> Choice:
        return options[int(self.rng.integers(len(options)))]

    def count(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))


@dataclass(frozen=True)
class Category:
    """Category of objects; members of one ``group`` share a shape and differ in appearance."""

    name: str
    build: Callable[[Vary], list[Part]]
    group: str | None = None


class Shapes(dict[str, Category]):
    """Categories of shape by name."""

    def register(self, build: Callable[[Vary], list[Part]]) -> Callable[[Vary], list[Part]]:
        """Add a category named after the function ``build``."""
        name = build.__name__.replace('_', ' ')
        self[name] = Category(name, build)
        return build


def corners(x: float, z: float) -> list[tuple[float, float]]:
    """Return the four corners of a rectangle of half extents x and z."""
    return [(sx * x, sz * z) for sx in (-1, 1) for sz in (-1, 1)]
