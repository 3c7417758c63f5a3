"""Discs: flat cylinders of radius 1 around y, painted alike on both faces."""
from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.appearances.base import BLACK, WHITE, Group, Painter, mix, over, plain
from clipgs_plugin.toy_world.categories import Vary
from clipgs_plugin.toy_world.solids import Part, Surface, cylinder


def _disc(v: Vary) -> Part:
    return cylinder(1.0, v(0.14, 0.22)).at().turn('y', v(0, 360)).turn('x', v(25, 90))


DISCS = Group('disc', _disc)


def _disc_places(s: Surface) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Return x and y of the face seen from outside, the radius, and the mask of faces, each (n,)."""
    x, _, z = s.points.T
    return x, -z * np.sign(s.normals[:, 1] + 1e-9), np.hypot(x, z), np.abs(s.normals[:, 1]) > 0.5


@DISCS.register
def pizza(v: Vary) -> Painter:
    slices: list[ndarray] = []
    for place in v.rng.uniform(-0.68, 0.68, (60, 2)):
        if np.hypot(*place) < 0.66 and all(np.hypot(*(place - other)) > 0.38 for other in slices):
            slices.append(place)
    toppings = [(place, 0.15, (0.74, 0.16, 0.12)) for place in slices]
    toppings += [(place, 0.06, (0.20, 0.48, 0.16)) for place in v.rng.uniform(-0.55, 0.55, (9, 2))]

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        rgb = over(plain(s, (0.83, 0.60, 0.32)), (0.72, 0.18, 0.10), face & (r < 0.86))
        rgb = over(rgb, (0.98, 0.82, 0.38), face & (r < 0.80))
        for (px, py), size, colour in toppings:
            rgb = over(rgb, colour, face & (np.hypot(x - px, y - py) < size))
        return rgb
    return painter


@DISCS.register
def clock(v: Vary) -> Painter:
    rim = v.pick(BLACK, (0.55, 0.13, 0.13), (0.42, 0.27, 0.15))
    hour, minute = v(0, 2 * math.pi), v(0, 2 * math.pi)

    def hand(x: ndarray, y: ndarray, angle: float, length: float, half: float) -> ndarray:
        along, across = x * math.sin(angle) + y * math.cos(angle), x * math.cos(angle) - y * math.sin(angle)
        return (np.abs(across) < half) & (along > -0.08) & (along < length)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        rgb = over(plain(s, rim), WHITE, face & (r < 0.86))
        marks = np.abs((np.arctan2(y, x) / (2 * math.pi) * 12 + 0.5) % 1 - 0.5) * r < 0.09
        dark = marks & (np.abs(r - 0.74) < 0.075) | hand(x, y, hour, 0.42, 0.06) | hand(x, y, minute, 0.66, 0.045)
        return over(rgb, BLACK, face & dark)
    return painter


@DISCS.register
def vinyl_record(v: Vary) -> Painter:
    label, start = v.pick((0.80, 0.15, 0.15), (0.95, 0.75, 0.15), (0.15, 0.40, 0.75)), v(0, 6)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        shine = 0.5 + 0.5 * np.cos(2 * (np.arctan2(y, x) - start))
        rgb = mix(plain(s, (0.06, 0.06, 0.07)), (0.30, 0.30, 0.33), shine ** 8 * face)
        rgb = over(rgb, (0.20, 0.20, 0.22), face & (r * 6 % 1 < 0.16))
        return over(over(rgb, label, face & (r < 0.36)), WHITE, face & (r < 0.07))
    return painter


@DISCS.register
def dartboard(v: Vary) -> Painter:
    shift = v(20, 22)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        odd = ((np.arctan2(y, x) / (2 * math.pi) * 20 + shift).astype(int) % 2 == 1)[:, None]
        rgb = np.where(odd, BLACK, (0.93, 0.86, 0.68))
        ring = ((np.abs(r - 0.79) < 0.06) | (np.abs(r - 0.48) < 0.06))[:, None]
        rgb = np.where(ring, np.where(odd, (0.80, 0.12, 0.12), (0.10, 0.52, 0.25)), rgb)
        rgb = over(over(rgb, (0.10, 0.52, 0.25), r < 0.17), (0.80, 0.12, 0.12), r < 0.09)
        return over(rgb, BLACK, ~face | (r > 0.86))
    return painter


@DISCS.register
def cookie(v: Vary) -> Painter:
    chips, dough = v.rng.uniform(-0.85, 0.85, (26, 2)), (v(0.76, 0.84), v(0.55, 0.60), 0.33)
    sizes = v.rng.uniform(0.07, 0.13, 26)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        near = (np.hypot(x[:, None] - chips[:, 0], y[:, None] - chips[:, 1]) < sizes).any(1)
        return over(over(plain(s, dough), (0.62, 0.40, 0.20), r > 0.93), (0.25, 0.14, 0.09), face & near)
    return painter
